import { expect, test } from 'vitest';

import { HEAD, layOut, ROW, topOf } from '../src/view/layout';

test('of ten thousand rows a screenful is drawn, wherever one looks', () => {
  for (const scrolled of [0, 12_345, 10_000 * ROW - 400, 1e9]) {
    const { placed, first, end, height } = layOut(10_000, [], scrolled, 400);
    expect(height).toBe(10_000 * ROW);
    expect(placed.length).toBeLessThan(40);
    expect(placed.map(one => one.index)).toEqual(Array.from({ length: end - first }, (_, at) => first + at));
    const seen = Math.min(scrolled, height - 400);
    expect(first * ROW).toBeLessThanOrEqual(seen);
    expect(end * ROW).toBeGreaterThanOrEqual(seen + 400);
  }
});

test('groups have their heads between the rows', () => {
  const groups = [
    { name: 'a', first: 0, count: 2 },
    { name: 'b', first: 2, count: 1 }
  ];
  const { placed, height } = layOut(3, groups, 0, 400);
  expect(height).toBe(3 * ROW + 2 * HEAD);
  expect(placed).toEqual([
    { kind: 'head', index: 0, top: 0 },
    { kind: 'job', index: 0, top: HEAD },
    { kind: 'job', index: 1, top: HEAD + ROW },
    { kind: 'head', index: 1, top: HEAD + 2 * ROW },
    { kind: 'job', index: 2, top: 2 * HEAD + 2 * ROW }
  ]);
  expect(topOf(2, groups)).toBe(2 * HEAD + 2 * ROW);
});

test('an empty list draws nothing', () => {
  expect(layOut(0, [], 0, 400)).toEqual({ height: 0, placed: [], first: 0, end: 0 });
});
