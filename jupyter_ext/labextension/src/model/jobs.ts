import { IDisposable } from '@lumino/disposable';

import { Job, JobChanges, Jobs, JobsQuery, MOST_JOBS, Window } from '../types';
import { FedModel } from './fed';

const SETTLE_MILLISECONDS = 80;
const MARGIN = 40; // rows that are kept ready beyond what is seen

/** What the user narrows the list down to. */
export type Filter = Pick<JobsQuery, 'states' | 'search' | 'host' | 'notebook' | 'group'>;

const NO_FILTER: Filter = { states: [], search: '', host: '', notebook: '', group: '' };

/** The list of jobs: the part of it that is looked at, kept up to date while somebody watches. */
export class JobsModel extends FedModel {
  /** What is known of the whole list; null until the first answer. */
  window: Window | null = null;

  get filter(): Filter {
    return this._filter;
  }

  set filter(filter: Filter) {
    this._filter = filter;
    this.first = 0;
    this.renew();
    this.tell();
  }

  get isFiltered(): boolean {
    const { states, search, host, notebook } = this._filter;
    return states.length > 0 || search !== '' || host !== '' || notebook !== '';
  }

  /** The index of the selected job in the whole list, -1 if it is not in the window. */
  get selectedIndex(): number {
    if (this.wantedIndex >= 0) {
      return this.wantedIndex;
    }
    const at = this.selectedKey === '' ? -1 : this.rows.findIndex(job => job.key === this.selectedKey);
    return at < 0 ? -1 : at + (this.window?.first ?? 0);
  }

  get selected(): Job | null {
    return this.rows.find(job => job.key === this.selectedKey) ?? null;
  }

  select(job: Job | null): void {
    this.selectedKey = job?.key ?? '';
    this.wantedIndex = -1;
    this.tell();
  }

  /** Select a job by its index in the whole list: at once, or when it has come. */
  selectAt(index: number): void {
    this.select(this.at(index) ?? null);
    if (this.selectedKey === '') {
      this.wantedIndex = index;
    }
  }

  /** Return a job by its index in the whole list, undefined where it has not come yet. */
  at(index: number): Job | undefined {
    return this.rows[index - (this.window?.first ?? 0)];
  }

  /** Have a first look, so that there is something to show at once when it is opened. */
  glance(): void {
    if (this.watching || this.window !== null) {
      return;
    }
    const look = this.feed.look('jobs', () => this.ask(), {
      snapshot: value => {
        look.dispose();
        if (!this.watching) {
          this.replace(value);
        }
      },
      problem: () => look.dispose()
    });
  }

  /** Keep up to date, from now on. */
  watch(): void {
    if (!this.watching) {
      this.watching = true;
      this.renew();
    }
  }

  /** Stop: nobody sees it. */
  rest(): void {
    this.watching = false;
    clearTimeout(this.timer);
    this.timer = undefined;
    this.look?.dispose();
    this.look = null;
  }

  /** Rows from `first` up to, not including, `end` are seen: have them in the window. */
  see(first: number, end: number): void {
    const last = Math.min(end, this.window?.total ?? end);
    const covered = this.first <= first && last <= this.first + MOST_JOBS;
    const wanted = Math.max(0, Math.floor((first + end - MOST_JOBS) / 2));
    if (!covered || (Math.abs(wanted - this.first) > MARGIN && this.isNearEdge(first, last))) {
      if (wanted !== this.first) {
        this.first = wanted;
        this.renewSoon();
      }
    }
  }

  private isNearEdge(first: number, last: number): boolean {
    const total = this.window?.total ?? 0;
    const end = this.first + MOST_JOBS;
    return (first - this.first < MARGIN && this.first > 0) || (end - last < MARGIN && end < total);
  }

  /** While one scrolls fast, what has just been passed is not asked for. */
  private renewSoon(): void {
    this.timer ??= setTimeout(() => this.renew(), SETTLE_MILLISECONDS);
  }

  private renew(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.watching) {
      return;
    }
    const before = this.look;
    this.look = this.feed.look('jobs', () => this.ask(), {
      snapshot: value => this.replace(value),
      changes: value => this.change(value),
      problem: problem => this.fail(problem)
    });
    before?.dispose();
  }

  private ask(): JobsQuery {
    return { ...this._filter, first: this.first, count: MOST_JOBS };
  }

  private replace(value: Jobs): void {
    const { jobs, ...window } = value;
    this.rows = jobs;
    this.settle(window);
  }

  private change(value: JobChanges): void {
    const { order, changed, ...window } = value;
    const known = new Map([...this.rows, ...changed].map(job => [job.key, job]));
    this.rows = (order ?? this.rows.map(job => job.key)).flatMap(key => known.get(key) ?? []);
    this.settle(window);
  }

  private settle(window: Window): void {
    this.window = window;
    this.problem = null;
    if (this.wantedIndex >= 0 && this.at(this.wantedIndex) !== undefined) {
      this.select(this.at(this.wantedIndex) ?? null);
    }
    this.tell();
  }

  private rows: Job[] = [];
  private first = 0; // of the window that is asked for
  private selectedKey = '';
  private wantedIndex = -1; // of the job that is to be selected when it has come
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watching = false;
  private look: IDisposable | null = null;
  private _filter = NO_FILTER;
}
