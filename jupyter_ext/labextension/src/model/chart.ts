/** Where what is drawn of a metric lies: numbers in, pixels out. */

import { size } from '../format';
import { Odd, Sample } from '../types';
import { Series, SYSTEM } from './metrics';

/** What a series is drawn over. */
export type Over = 'step' | 'time';

export interface Tick {
  /** Pixels from the left, or from the top. */
  at: number;
  text: string;
}

export interface Mark {
  x: number;
  y: number;
}

export interface OddMark extends Mark {
  what: Odd;
}

export interface Plot {
  /** The area within the axes. */
  left: number;
  top: number;
  right: number;
  bottom: number;
  x: Tick[];
  y: Tick[];
  /** SVG paths: of the values, and of the space between the least and the most of them. */
  line: string;
  band: string;
  /** Values that no line leads to or from. */
  dots: Mark[];
  /** Where values are not finite. */
  odds: OddMark[];
  /** Of each sample its place; null: none is finite in it. */
  places: (Mark | null)[];
}

interface Axis {
  low: number;
  high: number;
  ticks: { value: number; text: string }[];
}

type Unit = 'bytes' | 'percent' | 'seconds' | '';

const MOST_Y_TICKS = 4;
const X_TICK = 55; // pixels from one to the next, at least
const CHARACTER = 6.5; // pixels
const BOTTOM = 18;
const TOP = 8;
const RIGHT = 10;
const LARGEST = 1e300;
const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const TIMES = [
  1,
  2,
  5,
  10,
  20,
  30,
  MINUTE,
  2 * MINUTE,
  5 * MINUTE,
  10 * MINUTE,
  20 * MINUTE,
  30 * MINUTE
].concat([HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY]);

/** Return the unit that a metric's name ends with; empty where it ends with none. */
export function unitOf(name: string): Unit {
  const found = /_(bytes|percent|seconds)( \(rank \d+\))?$/.exec(name);
  return (found?.[1] as Unit | undefined) ?? '';
}

/** Return a value in words, with as many digits as somebody reads who glances at it. */
export function valueText(value: number | Odd, unit: Unit): string {
  if (typeof value === 'string') {
    return { NaN: 'NaN', Infinity: '∞', '-Infinity': '−∞' }[value];
  }
  if (unit === 'bytes' && value >= 0) {
    return size(value);
  }
  const most = Math.abs(value);
  const isFar = most >= 1e9 || (most >= 1e6 && !Number.isInteger(value)) || (most > 0 && most < 1e-4);
  const text = isFar
    ? shortened(value.toExponential(3))
    : String(Number(value.toPrecision(Number.isInteger(value) ? 9 : unit === 'percent' ? 3 : 5)));
  return withUnit(text, unit);
}

/** Return a value in words, with all the digits that it has. */
export function exactText(value: number | Odd, unit: Unit): string {
  if (typeof value === 'string') {
    return valueText(value, unit);
  }
  return unit === 'bytes' ? `${value.toLocaleString('en-US')} B` : withUnit(String(value), unit);
}

function withUnit(text: string, unit: Unit): string {
  return unit === 'percent' ? `${text} %` : unit === 'seconds' ? `${text} s` : text;
}

/** Return a power without what says nothing: "1.000e+6" is "1e6". */
function shortened(text: string): string {
  return text.replace(/\.?0*e\+?/, 'e');
}

/** Return what a series can be drawn over. */
export function hasSteps(series: Series): boolean {
  return series.samples.every(([, step]) => step !== null);
}

/** Return a series as it is to be drawn.

 * @param series - what is drawn
 * @param over - what over; steps only if it has them
 * @param origin - the time that others are counted from
 * @param width - of all of it, in pixels
 * @param height - of all of it, in pixels
 */
export function plotOf(series: Series, over: Over, origin: number, width: number, height: number): Plot {
  const { samples } = series;
  const unit = unitOf(series.name);
  const bySteps = over === 'step' && hasSteps(series);
  const xs = samples.map(([time, step]) => (bySteps ? (step ?? 0) : time - origin));
  const vertical = valueAxis(samples, unit, series.name.startsWith(SYSTEM));
  const longest = Math.max(...vertical.ticks.map(({ text }) => text.length));
  const left = Math.ceil(longest * CHARACTER) + 10;
  const area = { left, top: TOP, right: Math.max(left + 1, width - RIGHT), bottom: height - BOTTOM };
  const horizontal = spanAxis(xs, Math.max(1, Math.floor((area.right - left) / X_TICK)), !bySteps);
  const x = (value: number) =>
    left + ((value - horizontal.low) / (horizontal.high - horizontal.low)) * (area.right - left);
  const y = (value: number) =>
    area.bottom - ((tamed(value) - vertical.low) / (vertical.high - vertical.low)) * (area.bottom - TOP);

  const places = samples.map(([, , value], index) =>
    value === null ? null : { x: round(x(xs[index] ?? 0)), y: round(y(value)) }
  );
  const odds = samples.flatMap(([, , , , , what], index) =>
    what ? [{ x: round(x(xs[index] ?? 0)), y: what === '-Infinity' ? area.bottom : TOP, what }] : []
  );
  const runs = runsOf(xs, places);
  return {
    ...area,
    x: horizontal.ticks.map(({ value, text }) => ({ at: round(x(value)), text })),
    y: vertical.ticks.map(({ value, text }) => ({ at: round(y(value)), text })),
    line: runs
      .filter(run => run.length > 1)
      .map(run => pathOf(run.flatMap(index => places[index] ?? [])))
      .join(''),
    band: runs.map(run => bandOf(run, samples, places, y)).join(''),
    dots: runs.filter(run => run.length === 1).flatMap(([index]) => places[index ?? 0] ?? []),
    odds,
    places
  };
}

/** Return the samples that a line leads through: it ends where one has no value, and where steps begin anew. */
function runsOf(xs: readonly number[], places: readonly (Mark | null)[]): number[][] {
  const runs: number[][] = [];
  let run: number[] = [];
  places.forEach((place, index) => {
    const before = run.at(-1);
    if (place === null || (before !== undefined && (xs[index] ?? 0) < (xs[before] ?? 0))) {
      run = [];
    }
    if (place !== null) {
      if (run.length === 0) {
        runs.push(run);
      }
      run.push(index);
    }
  });
  return runs;
}

function pathOf(marks: Mark[]): string {
  return marks.map(({ x, y }, index) => `${index ? 'L' : 'M'}${x} ${y}`).join('');
}

function bandOf(
  run: number[],
  samples: readonly Sample[],
  places: readonly (Mark | null)[],
  y: (value: number) => number
): string {
  const upper: Mark[] = [];
  const lower: Mark[] = [];
  for (const index of run) {
    const [, , , least, most] = samples[index] ?? [];
    const place = places[index];
    if (place && typeof least === 'number' && typeof most === 'number') {
      upper.push({ x: place.x, y: round(y(most)) });
      lower.push({ x: place.x, y: round(y(least)) });
    }
  }
  const isFlat = upper.every(({ y: top }, index) => top === lower[index]?.y);
  return isFlat ? '' : `${pathOf(upper.concat(lower.reverse()))}Z`;
}

function valueAxis(samples: readonly Sample[], unit: Unit, isUse: boolean): Axis {
  let low = Infinity;
  let high = -Infinity;
  for (const [, , , least, most] of samples) {
    if (least !== null && most !== null) {
      low = Math.min(low, tamed(least));
      high = Math.max(high, tamed(most));
    }
  }
  if (low > high) {
    [low, high] = [0, 1]; // none is finite
  }
  if (isUse && low >= 0) {
    low = 0; // how much it is says more than how it changes
    high = Math.max(high, unit === 'percent' ? 100 : 0);
  }
  if (high - low <= Math.max(Math.abs(low), Math.abs(high)) * 1e-12) {
    const room = Math.abs(high) / 10 || 1; // they are all the same
    [low, high] = [low === 0 ? 0 : low - room, high + room];
  }
  const step = Math.max(unit === 'bytes' ? 1 : 0, roundStep((high - low) / MOST_Y_TICKS));
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => {
    const value = (first + index) * step;
    return { value, text: tickText(value, step, unit) };
  });
  return { low: first * step, high: last * step, ticks };
}

/** Return an axis for steps, or for seconds, that begins and ends with its values. */
function spanAxis(xs: readonly number[], most: number, areSeconds: boolean): Axis {
  let low = Infinity;
  let high = -Infinity;
  for (const value of xs) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) {
    [low, high] = [0, 1];
  }
  const span = high - low;
  if (span === 0) {
    const text = areSeconds ? timeText(low, 1) : tickText(low, 1, '');
    return { low: low - 1, high: high + 1, ticks: [{ value: low, text }] };
  }
  const step = areSeconds ? timeStep(span / most) : Math.max(1, roundStep(span / most));
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  const ticks = Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => {
    const value = (first + index) * step;
    return { value, text: areSeconds ? timeText(value, step) : tickText(value, step, '') };
  });
  return { low, high, ticks };
}

/** Return 1, 2 or 5 times a power of ten, that much or the next above. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  const digits = [1, 2, 5, 10].find(factor => factor * power >= least * (1 - 1e-9)) ?? 10;
  return digits * power;
}

function timeStep(least: number): number {
  return least < 1 ? roundStep(least) : (TIMES.find(step => step >= least) ?? roundStep(least / DAY) * DAY);
}

function timeText(seconds: number, step: number): string {
  const [unit, name] =
    step < MINUTE ? [1, 's'] : step < HOUR ? [MINUTE, 'min'] : step < DAY ? [HOUR, 'h'] : [DAY, 'd'];
  return `${Number((seconds / unit).toFixed(step < 1 ? decimals(step) : 0))} ${name}`;
}

function tickText(value: number, step: number, unit: Unit): string {
  if (unit === 'bytes' && value >= 0) {
    return size(value);
  }
  const largest = Math.abs(value);
  let text: string;
  if (value === 0 || Math.abs(value) < step / 2) {
    text = '0';
  } else if (largest >= 1e6 || step < 1e-5) {
    const digits = Math.max(0, Math.floor(Math.log10(largest)) - Math.floor(Math.log10(step) + 1e-9));
    text = shortened(value.toExponential(Math.min(12, digits)));
  } else {
    text = value.toFixed(decimals(step));
  }
  return withUnit(text, unit);
}

function decimals(step: number): number {
  return Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
}

function tamed(value: number): number {
  return Math.max(-LARGEST, Math.min(LARGEST, value));
}

function round(pixels: number): number {
  return Math.round(10 * pixels) / 10;
}
