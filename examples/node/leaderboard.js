// A leaderboard in a sorted set: the best, one player's rank, everyone within a score range.
//
//   node leaderboard.js
import { isMain, uniquePrefix, withClients } from './lib/connect.js';

/** Keeps a player's best score only. */
export async function submit(client, key, player, score) {
  await client.zAdd(key, { value: player, score }, { comparison: 'GT' });
}

/** The `count` best, best first. */
export async function top(client, key, count) {
  return client.zRangeWithScores(key, 0, count - 1, { REV: true });
}

/** Rank from 1 and score of a player, or null. */
export async function standing(client, key, player) {
  const [rank, score] = await client.multi().zRevRank(key, player).zScore(key, player).exec();
  return rank === null ? null : { rank: rank + 1, score };
}

/** Players with `min` <= score <= `max`, lowest first. */
export async function between(client, key, min, max) {
  return client.zRangeByScore(key, min, max);
}

/** One page of the players scoring more than `above`, best first. */
export async function pageAbove(client, key, above, offset, count) {
  return client.zRange(key, '+inf', `(${above}`, {
    BY: 'SCORE',
    REV: true,
    LIMIT: { offset, count },
  });
}

if (isMain(import.meta.url)) {
  const key = uniquePrefix('board');
  await withClients(1, async (client) => {
    for (let player = 0; player < 100; player++) {
      await submit(client, key, `player-${player}`, (player * 7919) % 1000);
    }
    console.log('top three:', await top(client, key, 3));
    console.log('player-42:', await standing(client, key, 'player-42'));
    console.log('500 to 540:', await between(client, key, 500, 540));
    console.log('second page above 900:', await pageAbove(client, key, 900, 4, 4));
    await client.unlink(key);
  });
}
