/** Numbers for people, as `remote-exec jobs` says them. */

import { Bar, Bill, Job, Pool } from './types';

/** Return a length of time: "12 ms", "1 min 15 s", "2 h 2 min". */
export function duration(seconds: number | null): string {
  if (seconds === null) {
    return '';
  }
  if (seconds < 0.9995) {
    return `${(Math.max(seconds, 0) * 1000).toFixed(0)} ms`;
  }
  if (seconds < 59.95) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  }
  if (whole < 86_400) {
    return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  }
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** Return a length of time that is counted, in whole seconds. */
export function ticking(seconds: number): string {
  return seconds < 59.5 ? `${Math.max(0, Math.round(seconds))} s` : duration(seconds);
}

/** Return a number of bytes: "0 B", "1.5 kB", "3.2 GB". */
export function size(bytes: number): string {
  let value = bytes;
  for (const unit of ['B', 'kB', 'MB', 'GB']) {
    if (value < 999.5) {
      return `${value.toFixed(unit === 'B' || value >= 99.95 ? 0 : 1)} ${unit}`;
    }
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}

/** Return date and time in this browser's time zone; only the time if it is today's. */
export function moment(seconds: number | null, now: number): string {
  if (seconds === null) {
    return '';
  }
  const then = new Date(1000 * seconds);
  const today = then.toDateString() === new Date(1000 * now).toDateString();
  return today ? then.toLocaleTimeString() : then.toLocaleString();
}

/** Return how long a job has run, null if it has not begun. */
export function elapsed(job: Job, now: number): number | null {
  return job.started_at === null ? null : Math.max(0, (job.ended_at ?? now) - job.started_at);
}

/** Return a job's elapsed time in words. */
export function elapsedText(job: Job, now: number): string {
  const seconds = elapsed(job, now);
  if (seconds === null) {
    return '';
  }
  return job.ended_at === null ? ticking(seconds) : duration(seconds);
}

/** Return an amount of money, rounded; one that is not zero never looks like zero: "0.42 EUR", "<0.0001". */
export function money(amount: number, currency: string): string {
  const digits = amount >= 0.1 || amount === 0 ? 2 : amount >= 0.01 ? 3 : 4;
  const rounded = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  const text = amount > 0 && amount < 0.0001 ? '<0.0001' : amount.toLocaleString('en-US', rounded);
  return `${text} ${currency}`.trim();
}

/** Return for how many seconds a job has held workers. */
export function heldSeconds(bill: Bill, now: number): number {
  return bill.seconds + (bill.since === null ? 0 : Math.max(0, now - bill.since));
}

/** Return what a job has cost until now in words; nothing where it has no price, or has had no worker yet. */
export function costText(job: Job, now: number): string {
  const { bill } = job;
  const held = bill && heldSeconds(bill, now);
  return bill && held ? money((bill.per_hour * held) / 3600, bill.currency) : '';
}

/** Return how far a bar is, from 0 to 1; null where it has no known end. */
export function fraction(bar: Bar): number | null {
  return bar.total ? Math.min(1, Math.max(0, bar.done / bar.total)) : null;
}

/** Return a bar in words: "epoch 3/10". */
export function barText(bar: Bar): string {
  const done = Number(bar.done.toPrecision(6));
  return `${bar.desc} ${bar.total === null ? done : `${done}/${bar.total}`}`.trim();
}

/** Return why a job ended, where that tells more than its state. */
export function causeText(cause: string, state: string): string {
  return cause === 'none' || cause === state ? '' : cause.replace(/_/g, ' ');
}

/** Return what kind of workers a pool has: "gpu · Python 3.11 · 2 CPUs · 1 GPU A100". */
export function kindOf(pool: Pool): string {
  const parts = [
    pool.instance_type === 'local' ? '' : pool.instance_type,
    pool.python_version && `Python ${pool.python_version}`,
    pool.cpus ? `${pool.cpus} CPU${pool.cpus === 1 ? '' : 's'}` : '',
    pool.memory_bytes ? size(pool.memory_bytes) : '',
    pool.gpus ? `${pool.gpus} GPU${pool.gpus > 1 ? 's' : ''} ${pool.gpu_type}`.trim() : ''
  ];
  return parts.filter(Boolean).join(' · ');
}

/** Return what a job is called: a cell by its name, or its notebook, and its number; all else by its name. */
export function titleOf(job: Job): string {
  const named = job.tags['cell_name'] || basename(job.notebook) || job.name;
  return isCell(job) ? `${named} [${job.tags['cell']}]` : job.name;
}

const CELL = /^\[\d+\] ?/;

/** Whether a job is a cell that its notebook waits for, or has waited for. */
export function isCell(job: Job): boolean {
  return 'cell' in job.tags && CELL.test(job.function);
}

/** Return the function that a job calls; of a cell, its first line. */
export function functionOf(job: Job): string {
  return isCell(job) ? job.function.replace(CELL, '') : job.function;
}

/** Return the last part of a path. */
export function basename(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
