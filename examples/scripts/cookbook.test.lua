-- The same scripts, tested in Lua. Run with: luar script test examples/scripts

test('gcra: a burst, and then evenly', function()
  equal(run('gcra', {'ip'}, {10, 1000, 3, 3}), {1, 0, 0, 300})
  equal(run('gcra', {'ip'}, {10, 1000, 3, 1}), {0, 0, 100, 300})
  advance(100)
  equal(run('gcra', {'ip'}, {10, 1000, 3, 1}), {1, 0, 0, 300})
  advance(300)
  equal(redis.call('EXISTS', 'ip'), 0)
end)

test('json: what is appended is taken in its order', function()
  run('json-append', {'queue'}, {'[1,2]'})
  run('json-append', {'queue'}, {'[{"id":3}]'})
  equal(cjson.decode(run('json-take', {'queue'}, {2})), {1, 2})
  equal(cjson.decode(run('json-take', {'queue'}, {2})), {{id = 3}})
  equal(redis.call('EXISTS', 'queue'), 0)
end)

test('json: a value that is no JSON stays as it is', function()
  redis.call('SET', 'queue', 'no json')
  fails('invalid token', function() run('json-take', {'queue'}, {1}) end)
  equal(redis.call('GET', 'queue'), 'no json')
end)

test('counter: never above its ceiling', function()
  for _ = 1, 5 do
    run('counter-ceiling', {'seats'}, {1, 3})
  end
  equal(redis.call('GET', 'seats'), '3')
end)
