"""redis-cli and redis-benchmark as people use them in a shell."""

import json
import os
import pty
import re
import select
import subprocess
import time

import pytest

from conftest import SERVER_PORT


def cli(*args, stdin=None, timeout=60, check=True):
    done = subprocess.run(
        ["redis-cli", "-p", str(SERVER_PORT), *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if not check:
        return done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cli_until(expected, *args, deadline_s=20):
    """Runs redis-cli, which would go on for ever, until its output matches `expected`. It writes
    to a terminal, because it holds its lines back otherwise."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        ["redis-cli", "-p", str(SERVER_PORT), *args], stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    output = ""
    end = time.monotonic() + deadline_s
    try:
        while not re.search(expected, output):
            left_s = end - time.monotonic()
            assert left_s > 0, output
            if select.select([controller], [], [], left_s)[0]:
                output += os.read(controller, 65536).decode()
    finally:
        process.terminate()
        process.wait()
        os.close(controller)


@pytest.fixture
def filled(prefix):
    """Keys of every type, gone afterwards."""
    commands = [f"SET {prefix}:string {'x' * 200}\n"]
    commands += [f"SET {prefix}:{number} {number}\n" for number in range(500)]
    for kind, command in (("list", "RPUSH"), ("set", "SADD")):
        commands.append(f"{command} {prefix}:{kind} {' '.join(map(str, range(900)))}\n")
    commands.append(f"HSET {prefix}:hash {' '.join(f'f{n} {n}' for n in range(800))}\n")
    commands.append(f"ZADD {prefix}:zset {' '.join(f'{n} m{n}' for n in range(700))}\n")
    cli(stdin="".join(commands))
    yield prefix
    cli("EVAL", "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end", 0,
        f"{prefix}*")


def test_answers_for_people_and_for_programs(prefix):
    assert cli("SET", prefix, "5") == "OK\n"
    assert cli("INCRBY", prefix, 2) == "7\n"
    assert cli("--no-raw", "INCRBY", prefix, 2) == "(integer) 9\n"
    assert cli("--no-raw", "GET", f"{prefix}:none") == "(nil)\n"
    assert cli("--csv", "MGET", prefix, f"{prefix}:none") == '"9",NULL\n'
    assert cli("-r", 5, "INCR", prefix).split() == ["10", "11", "12", "13", "14"]
    assert cli("-x", "SET", prefix, stdin="from stdin") == "OK\n"
    assert cli("GET", prefix) == "from stdin\n"
    assert cli("-n", 9, "EXISTS", prefix) == "0\n"
    assert "ERR unknown command" in cli("NOSUCH", check=False)
    assert cli("-e", "NOSUCH", check=False) != "OK"
    assert cli("DEL", prefix) == "1\n"


def test_resp3(prefix):
    cli("HSET", prefix, "a", "1")
    assert cli("-3", "--no-raw", "HGETALL", prefix) == '1# "a" => "1"\n'
    assert json.loads(cli("-3", "--json", "HGETALL", prefix)) == {"a": "1"}
    cli("DEL", prefix)
    cli("ZADD", prefix, "1.5", "m")
    assert cli("-3", "--no-raw", "ZSCORE", prefix, "m") == "(double) 1.5\n"
    assert cli("-2", "--no-raw", "ZSCORE", prefix, "m") == '"1.5"\n'
    cli("DEL", prefix)


def test_commands_from_standard_input(prefix):
    script = f'SET {prefix} "two words\\n"\nAPPEND {prefix} \'!\'\nMULTI\nSTRLEN {prefix}\nDEL {prefix}\nEXEC\n'
    assert cli(stdin=script).split() == ["OK", "11", "OK", "QUEUED", "QUEUED", "11", "1"]


def test_pipe_mode_loads_in_bulk(prefix):
    count = 50_000
    commands = "".join(
        f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n$1\r\nx\r\n"
        for key in (f"{prefix}:{number}" for number in range(count))
    )
    # One of them fails, and pipe mode counts it.
    commands += f"*2\r\n$4\r\nLPOP\r\n${len(prefix) + 2}\r\n{prefix}:0\r\n"
    output = cli("--pipe", stdin=commands, check=False)
    assert f"errors: 1, replies: {count + 1}" in output
    found = cli("--scan", "--pattern", f"{prefix}:*").split()
    assert len(found) >= count and len(set(found)) == count
    body = "local n = 0 for i = 1, ARGV[1] do n = n + redis.call('UNLINK', KEYS[1] .. ':' .. i - 1) end return n"
    assert cli("EVAL", body, 1, prefix, count) == f"{count}\n"


def test_eval_of_a_file(prefix, tmp_path):
    script = tmp_path / "script.lua"
    script.write_text("redis.call('SET', KEYS[1], ARGV[1])\nreturn {KEYS[1], redis.call('GET', KEYS[1])}")
    assert cli("--eval", script, prefix, ",", "value").split() == [prefix, "value"]
    script.write_text("local a = 1\nreturn redis.call('NOSUCH')\n")
    assert "Unknown Redis command called from script" in cli("--eval", script, check=False)
    cli("DEL", prefix)


def test_big_keys(filled):
    output = cli("--bigkeys")
    for kind, unit in (("list", "items"), ("set", "members"), ("hash", "fields"), ("zset", "members")):
        assert re.search(rf'Biggest +{kind} found .*{unit}', output), output
    assert "Sampled" in output
    output = cli("--memkeys")
    assert re.search(r"Biggest +string found .*bytes", output), output


def test_hot_keys_need_lfu(filled):
    assert "LFU maxmemory policy is not selected" in cli("--hotkeys", check=False)
    cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    try:
        for _ in range(20):
            cli("-r", 100, "GET", f"{filled}:string")
        assert f"{filled}:string" in cli("--hotkeys")
    finally:
        cli("CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_statistics_and_latency_until_stopped():
    # Two lines of figures: requests so far, and in brackets those since the line before.
    cli_until(r"keys +mem .*\n.*\d+ \(\+0\).*\n.*\d+ \(\+\d+\)", "--stat", "-i", "0.1")
    cli_until(r"min: \d+, max: \d+, avg: [\d.]+ \(\d{2,} samples\)", "--latency")


def test_monitor_shows_what_others_do(prefix):
    monitor = subprocess.Popen(
        ["redis-cli", "-p", str(SERVER_PORT), "MONITOR"], stdout=subprocess.PIPE
    )
    output = b""

    def read_until(expected):
        nonlocal output
        end = time.monotonic() + 10
        while not re.search(expected.encode(), output):
            ready, _, _ = select.select([monitor.stdout], [], [], end - time.monotonic())
            assert ready, f"{expected} not in {output}"
            output += os.read(monitor.stdout.fileno(), 65536)

    try:
        read_until("^OK\n")
        cli("EVAL", "return redis.call('set', KEYS[1], 'a\tb')", 1, prefix)
        read_until(rf'\n\d+\.\d{{6}} \[0 127\.0\.0\.1:\d+\] "EVAL" "return .*" "1" "{prefix}"\n')
        read_until(rf'\n\d+\.\d{{6}} \[0 lua\] "set" "{prefix}" "a\\tb"\n')
    finally:
        monitor.terminate()
        monitor.wait()
        cli("DEL", prefix)


def test_benchmark_runs_every_test():
    tests = "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"
    for pipeline in (1, 16):
        done = subprocess.run(
            ["redis-benchmark", "-p", str(SERVER_PORT), "-t", tests, "-n", "5000", "-c", "50",
             "-P", str(pipeline), "-r", "1000", "-q"],
            capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "error" not in (done.stdout + done.stderr).lower()
        rates = re.findall(r"([A-Z_0-9 ()a-z]+): ([\d.]+) requests per second", done.stdout)
        assert len(rates) >= 16, done.stdout
        assert all(float(rate) > 100 for _, rate in rates)


def test_benchmark_with_a_script():
    done = subprocess.run(
        ["redis-benchmark", "-p", str(SERVER_PORT), "-n", "5000", "-P", "16", "-q",
         "eval", "return redis.call('INCR', KEYS[1])", "1", "e2e:benchmark"],
        capture_output=True, text=True, timeout=60,
    )
    assert "requests per second" in done.stdout, done.stdout + done.stderr
    assert int(cli("GET", "e2e:benchmark")) >= 5000
    cli("DEL", "e2e:benchmark")
