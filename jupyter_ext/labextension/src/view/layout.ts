/** Where the rows of a long list lie: only those that are seen are drawn. */

import { Group } from '../types';

export const ROW = 44; // pixels; see .jp-RemoteExec-job
export const HEAD = 26;
const AROUND = 8; // rows drawn beyond what is seen

export interface Placed {
  readonly kind: 'job' | 'head';
  /** Of the job in the whole list, or of the group. */
  readonly index: number;
  readonly top: number;
}

export interface Layout {
  readonly height: number;
  readonly placed: Placed[];
  /** Indices of the jobs that are drawn: from `first` up to, not including, `end`. */
  readonly first: number;
  readonly end: number;
}

/** Return the top of a job's row. */
export function topOf(index: number, groups: readonly Group[]): number {
  return index * ROW + HEAD * groups.filter(group => group.first <= index).length;
}

/** Return what is drawn of a list that is scrolled to `scrolled` and seen through `seen` pixels. */
export function layOut(total: number, groups: readonly Group[], scrolled: number, seen: number): Layout {
  const height = total * ROW + groups.length * HEAD;
  const from = Math.max(0, Math.min(scrolled, height - seen) - AROUND * ROW);
  const to = scrolled + seen + AROUND * ROW;
  const placed: Placed[] = [];
  let first = total;
  let end = 0;
  const sections = groups.length ? groups : [{ name: '', first: 0, count: total }];
  sections.forEach((group, number) => {
    const head = topOf(group.first, groups) - (groups.length ? HEAD : 0);
    const rows = topOf(group.first, groups);
    if (groups.length && head < to && head + HEAD > from) {
      placed.push({ kind: 'head', index: number, top: head });
    }
    const start = Math.max(0, Math.floor((from - rows) / ROW));
    const stop = Math.min(group.count, Math.ceil((to - rows) / ROW));
    for (let at = start; at < stop; at++) {
      placed.push({ kind: 'job', index: group.first + at, top: rows + at * ROW });
    }
    if (start < stop) {
      first = Math.min(first, group.first + start);
      end = Math.max(end, group.first + stop);
    }
  });
  return { height, placed, first: Math.min(first, end), end };
}
