/**
 * What the server tells and takes: the dataclasses of `jupyter_ext/server/messages.py`, field by field.
 *
 * Times are seconds since the epoch (UTC), lengths of time seconds, sizes bytes; null is "not known" or "not yet".
 */

export type State = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

export const STATES: readonly State[] = ['running', 'queued', 'succeeded', 'failed', 'cancelled'];

/** How many jobs one window can hold. */
export const MOST_JOBS = 200;

export type AgentState = 'running' | 'none' | 'unreachable';

export interface Bar {
  desc: string;
  done: number;
  total: number | null;
  rate: number | null;
}

/** What a worker costs. */
export interface Price {
  per_hour: number;
  currency: string;
}

/** For how long a job has held workers that have a price. */
export interface Bill extends Price {
  seconds: number;
  since: number | null;
}

export interface Job {
  key: string;
  host: string;
  name: string;
  kind: 'job' | 'call' | 'array';
  function: string;
  state: State;
  cause: string;
  summary: string;
  created_at: number;
  started_at: number | null;
  ended_at: number | null;
  instance_type: string;
  attempts: number;
  count: number;
  failed: number;
  tags: Record<string, string>;
  notebook: string;
  progress: Bar[];
  bill: Bill | null;
}

export interface Group {
  name: string;
  first: number;
  count: number;
}

/** What is told of a window of the list besides its jobs. */
export interface Window {
  first: number;
  total: number;
  groups: Group[];
  counts: Record<State, number>;
  agent: AgentState;
  hosts: string[];
  more: boolean;
}

export interface Jobs extends Window {
  jobs: Job[];
}

export interface JobChanges extends Window {
  order: string[] | null;
  changed: Job[];
}

export interface Phase {
  name: string;
  seconds: number;
  detail: string;
}

export interface Death {
  message: string;
  pid: number;
  signal: number | null;
  exit_code: number | null;
  peak_memory: number;
  peak_gpu_memory: number;
  oom_evidence: string;
  last_lines: string[];
}

export interface Attempt {
  number: number;
  state: State;
  cause: string;
  worker_pid: number;
  started_at: number | null;
  ended_at: number | null;
  phases: Phase[];
  death: Death | null;
}

export interface Environment {
  kind: string;
  python: string;
  requirements: string[];
}

export interface GpuUse {
  uuid: string;
  percent: number;
  memory_used_bytes: number;
  peak_memory_bytes: number;
}

export interface Result {
  size_bytes: number;
  type: string;
  text: string;
}

export interface Frame {
  filename: string;
  lineno: number;
  name: string;
  line: string;
  source: string;
  source_start: number;
  locals: Record<string, string> | null;
}

export interface Failure {
  type: string;
  message: string;
  notes: string[];
  frames: Frame[];
  cause: Failure | null;
  context: Failure | null;
  members: Failure[];
}

export interface JobDetail {
  job: Job;
  why: string;
  attempts: Attempt[];
  environment: Environment;
  gpus: GpuUse[];
  code: string;
  result: Result | null;
  failure: Failure | null;
  traceback: string;
  can_rerun: boolean;
  why_not_rerun: string;
}

export interface LogRecord {
  time: number;
  stream: 'out' | 'err' | 'log' | 'gap';
  text: string;
}

export interface LogPiece {
  records: LogRecord[];
  next: string;
  end: boolean;
}

/** A value that is not finite. */
export type Odd = 'NaN' | 'Infinity' | '-Infinity';

/** Time, step, value, the least, the most, and what is not finite ("": all are), of one point or of neighbours. */
export type Sample = [number, number | null, number | null, number | null, number | null, Odd | ''];

export interface MetricSeries {
  name: string;
  first: number;
  samples: Sample[];
  count: number;
  odd: number;
  last: number | Odd;
}

export interface Metrics {
  series: MetricSeries[];
  left_out: number;
  end: boolean;
}

export interface Cancelled {
  cancelled: boolean;
}

export interface CancelledAll {
  count: number;
  problems: string[];
}

export interface Rerun {
  host: string;
  name: string;
}

export interface Shell {
  terminal: string;
}

export interface Worker {
  id: number;
  pid: number;
  state: string;
  reuses: number;
  idle_seconds: number;
  keep_alive_left: number | null;
  cpu_percent: number | null;
  memory_bytes: number | null;
  gpus: string[];
  price: Price | null;
}

export interface Pool {
  key: string;
  asked_by: string[];
  instance_type: string;
  python_version: string;
  environment: string;
  python: string;
  keep_alive_seconds: number;
  max_workers: number;
  queued: number;
  cpus: number;
  memory_bytes: number;
  gpus: number;
  gpu_type: string;
  note: string;
  workers: Worker[];
}

export interface Gpu {
  uuid: string;
  name: string;
  percent: number;
  memory_used_bytes: number;
  memory_total_bytes: number;
  held_by: string[];
}

export interface Host {
  name: string;
  state: 'connected' | 'not answering' | 'not connected' | 'no agent';
  version: string;
  pid: number;
  started_at: number | null;
  reached_at: number | null;
  cpus: number;
  cpu_percent: number | null;
  memory_used_bytes: number | null;
  memory_total_bytes: number | null;
  gpus: Gpu[];
  pools: Pool[];
}

export interface Hosts {
  hosts: Host[];
}

export interface InstanceType {
  name: string;
  backend: string;
  shape: string;
  source: string;
}

export interface InstanceTypes {
  instance_types: InstanceType[];
  default: string;
}

export interface Status {
  agent: AgentState;
  version: string;
  message: string;
  hint: string;
  queued: number;
  running: number;
  ended: Job[];
}

export interface Problem {
  message: string;
  hint: string;
  status: number;
}

/** Which jobs, and how: a filter and a window. */
export interface JobsQuery {
  states: State[];
  search: string;
  host: string;
  notebook: string;
  group: '' | 'host' | 'notebook';
  first: number;
  count: number;
}

/** What a page looks at, with what it is told at first and what after that. */
export interface Looks {
  jobs: { ask: JobsQuery; snapshot: Jobs; changes: JobChanges };
  job: { ask: { host: string; name: string }; snapshot: JobDetail; changes: never };
  logs: { ask: { host: string; name: string; from: string }; snapshot: LogPiece; changes: LogPiece };
  metrics: { ask: { host: string; name: string }; snapshot: Metrics; changes: Metrics };
  hosts: { ask: object; snapshot: Hosts; changes: never };
  status: { ask: object; snapshot: Status; changes: never };
}

export type At = keyof Looks;

/** One message of the server over the websocket. */
export interface Sent {
  type: 'snapshot' | 'changes' | 'problem';
  id: number;
  at: At;
  sequence: number;
  value: unknown;
  problem: Problem | null;
}

/** What names a job. */
export interface JobId {
  host: string;
  name: string;
}
