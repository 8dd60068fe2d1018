import { expect, test } from 'vitest';

import { exactText, Plot, plotOf, unitOf, valueText } from '../src/model/chart';
import { MetricsModel, Series } from '../src/model/metrics';
import { Metrics, Odd, Sample } from '../src/types';
import { Server } from './socket';

const WIDTH = 400;
const HEIGHT = 150;

function seriesOf(values: (number | Odd)[], steps?: number[], name = 'loss'): Series {
  const samples = values.map((value, index): Sample => {
    const finite = typeof value === 'number' ? value : null;
    return [
      100 + index,
      steps?.[index] ?? null,
      finite,
      finite,
      finite,
      finite === null ? (value as Odd) : ''
    ];
  });
  const odd = samples.filter(sample => sample[5]).length;
  return { name, samples, count: values.length, odd, last: values.at(-1) ?? 0 };
}

function plotted(series: Series, over: 'step' | 'time' = 'step'): Plot {
  return plotOf(series, over, 100, WIDTH, HEIGHT);
}

const texts = (ticks: Plot['x']) => ticks.map(({ text }) => text);
const numbers = (path: string) => (path.match(/-?[\d.]+/g) ?? []).map(Number);

/** Whatever was logged, what is drawn lies within the picture, and every label is another. */
function expectSound(plot: Plot): void {
  const xs = [...plot.x.map(({ at }) => at), ...[...plot.dots, ...plot.odds].map(({ x }) => x)];
  const ys = [...plot.y.map(({ at }) => at), ...[...plot.dots, ...plot.odds].map(({ y }) => y)];
  for (const path of [plot.line, plot.band]) {
    numbers(path).forEach((value, index) => (index % 2 ? ys : xs).push(value));
  }
  expect(xs.every(x => x >= plot.left - 0.1 && x <= plot.right + 0.1)).toBe(true);
  expect(ys.every(y => y >= plot.top - 0.1 && y <= plot.bottom + 0.1)).toBe(true);
  expect(plot.line + plot.band).not.toMatch(/NaN|Infinity/);
  for (const ticks of [plot.x, plot.y]) {
    expect(new Set(texts(ticks)).size).toBe(ticks.length);
    expect(ticks.length).toBeGreaterThan(0);
    expect(ticks.length).toBeLessThan(10);
  }
}

test('a line leads from the first step to the last, between round numbers', () => {
  const plot = plotted(seriesOf([0.9, 0.5, 0.13], [0, 10, 20]));
  expect(texts(plot.y)).toEqual(['0', '0.2', '0.4', '0.6', '0.8', '1.0']);
  expect(texts(plot.x)).toEqual(['0', '5', '10', '15', '20']);
  const [x, , , , end] = numbers(plot.line);
  expect([x, end]).toEqual([plot.left, plot.right]);
  expectSound(plot);
});

test('without steps it is drawn over the time since the first of all', () => {
  const series = seriesOf(Array.from({ length: 301 }, (_, index) => index));
  expect(texts(plotted(series).x)).toEqual(['0 min', '1 min', '2 min', '3 min', '4 min', '5 min']);
  expect(texts(plotted(seriesOf([1, 2], [7, 8]), 'time').x)).toContain('0 s');
});

test.each([
  ['one point', [3]],
  ['the same all over', [5, 5, 5]],
  ['nothing but zero', [0, 0]],
  ['huge', [1e308, -1e308]],
  ['tiny', [1e-300, 3e-300]],
  ['apart by what a float can just tell', [1, 1 + 2e-16]],
  ['close together and far from zero', [1e9 + 0.5, 1e9 + 0.75]],
  ['over many powers of ten', [1e-8, 1, 1e8]],
  ['not finite at all', ['NaN', 'Infinity', '-Infinity']],
  ['finite now and then', [1, 'NaN', 2, 3, 'Infinity', 4]],
  ['negative', [-3, -2.5, -7]]
] as [string, (number | Odd)[]][])('values that are %s', (_, values) => {
  for (const name of ['loss', 'system/memory_bytes', 'gpu_percent (rank 3)', 'epoch_seconds']) {
    expectSound(plotted(seriesOf(values, undefined, name)));
    expectSound(
      plotted(
        seriesOf(
          values,
          values.map((_, index) => index * 1000),
          name
        )
      )
    );
  }
});

test('a line ends where a value is not finite, and that is marked; what stands alone is a dot', () => {
  const plot = plotted(seriesOf([1, 2, 'NaN', 3, '-Infinity', 4, 5]));
  expect(plot.line.match(/M/g)).toHaveLength(2);
  expect(plot.dots).toHaveLength(1);
  expect(plot.odds.map(({ what, y }) => [what, y])).toEqual([
    ['NaN', plot.top],
    ['-Infinity', plot.bottom]
  ]);
});

test('where steps begin anew, as in a second attempt, so does the line', () => {
  expect(plotted(seriesOf([3, 2, 1, 3, 2], [0, 1, 2, 0, 1])).line.match(/M/g)).toHaveLength(2);
});

test('a sample that stands for many shows the least and the most of them', () => {
  const samples: Sample[] = [
    [0, 0, 5, 1, 9, ''],
    [1, 1, 5, 4, 6, '']
  ];
  const plot = plotOf({ name: 'loss', samples, count: 20, odd: 0, last: 5 }, 'step', 0, WIDTH, HEIGHT);
  expect(plot.band).toMatch(/^M.*Z$/);
  expect(plot.y.at(0)?.text).toBe('0');
  expectSound(plot);
});

test('what a job uses is drawn from zero, processors up to one at least', () => {
  const axis = (name: string) => texts(plotted(seriesOf([12, 13], undefined, name)).y);
  expect(axis('system/cpu_percent')).toEqual(['0 %', '50 %', '100 %']);
  expect(axis('system/memory_bytes')[0]).toBe('0 B');
  expect(axis('accuracy_percent')[0]).toBe('12.0 %');
});

test('a hundred thousand points are drawn at once', () => {
  const values = Array.from({ length: 100_000 }, (_, index) => Math.sin(index / 1000));
  expectSound(
    plotted(
      seriesOf(
        values,
        values.map((_, index) => index)
      )
    )
  );
});

test('units are told by names', () => {
  expect([
    unitOf('system/memory_bytes'),
    unitOf('x_percent (rank 2)'),
    unitOf('bytes'),
    unitOf('loss')
  ]).toEqual(['bytes', 'percent', '', '']);
  const told: [number | Odd, ReturnType<typeof unitOf>, string][] = [
    [1_500, 'bytes', '1.5 kB'],
    [99.5, 'percent', '99.5 %'],
    [0.1 + 0.2, '', '0.3'],
    [1_234_567, '', '1234567'],
    [-49e9, '', '-4.9e10'],
    [1234567.8, '', '1.235e6'],
    [1e-9, '', '1e-9'],
    [60_000, '', '60000'],
    [0.139082345678, '', '0.13908'],
    [1234.56789, 'seconds', '1234.6 s'],
    [12.3456, 'percent', '12.3 %'],
    ['NaN', 'bytes', 'NaN'],
    ['-Infinity', '', '−∞']
  ];
  for (const [value, unit, text] of told) {
    expect(valueText(value, unit)).toBe(text);
  }
});

test('whoever wants to know exactly is told all digits', () => {
  expect(exactText(0.139082345678, '')).toBe('0.139082345678');
  expect(exactText(9_512_961, 'bytes')).toBe('9,512,961 B');
  expect(exactText('NaN', 'percent')).toBe('NaN');
});

function told(first: number, values: number[], end = false): Metrics {
  const samples = values.map((value, index): Sample => [first + index, null, value, value, value, '']);
  const count = first + values.length;
  return {
    series: [{ name: 'loss', first, samples, count, odd: 0, last: values.at(-1) ?? 0 }],
    left_out: 0,
    end
  };
}

test('metrics are looked at only while they are seen, and until all are there', () => {
  const server = new Server();
  const metrics = new MetricsModel(server.feed, { host: 'local', name: 'fit' });
  const values = () => metrics.series.get('loss')?.samples.map(sample => sample[2]);
  metrics.watch();
  expect(server.sockets).toHaveLength(0); // another tab of the page is shown
  const hide = metrics.show();
  server.socket.accept();
  expect(server.socket.said).toEqual([{ type: 'look', id: 1, at: 'metrics', host: 'local', name: 'fit' }]);
  server.socket.tell('snapshot', 1, told(0, [1, 2, 3, 4]));
  const before = metrics.series.get('loss');
  server.socket.tell('changes', 2, told(3, [5, 6]));
  expect(values()).toEqual([1, 2, 3, 5, 6]);
  expect(before?.samples).toHaveLength(4); // what is drawn now is not changed under its hands
  server.socket.tell('changes', 3, told(0, [2, 6])); // they are fewer now, each of which stands for more
  expect(values()).toEqual([2, 6]);
  metrics.rest();
  expect(server.socket.isClosed).toBe(true);
  metrics.watch();
  server.socket.accept();
  server.socket.tell('snapshot', 1, told(0, [7], true));
  expect([values(), metrics.ended, server.socket.isClosed]).toEqual([[7], true, true]);
  hide();
  metrics.show();
  expect(server.sockets).toHaveLength(2);
});
