import { IDisposable } from '@lumino/disposable';

import { Feed } from '../feed';
import { JobId, Metrics, MetricSeries, Odd, Sample } from '../types';
import { FedModel } from './fed';

/** One metric. Replaced as a whole when it changes. */
export interface Series {
  readonly name: string;
  readonly samples: readonly Sample[];
  /** How many points the samples stand for, and how many of these are not finite. */
  readonly count: number;
  readonly odd: number;
  readonly last: number | Odd;
}

/** What a job uses, as opposed to what it logs. */
export const SYSTEM = 'system/';

/** A job's metrics: kept up to date while its page is seen (`watch`) and they are what is shown there (`show`). */
export class MetricsModel extends FedModel {
  constructor(
    feed: Feed,
    private readonly id: JobId
  ) {
    super(feed);
  }

  /** In the order in which they were logged first. */
  series: ReadonlyMap<string, Series> = new Map();

  /** How many more there are than are shown. */
  leftOut = 0;

  /** Whether any answer has come. */
  begun = false;

  /** Whether all of them are here. */
  ended = false;

  /** The first time of all, from which times are counted. */
  get origin(): number {
    return Math.min(...[...this.series.values()].map(one => one.samples[0]?.[0] ?? Infinity));
  }

  /** Show them until the returned function is called. */
  show(): () => void {
    this.shown += 1;
    this.follow();
    return () => {
      this.shown -= 1;
      this.follow();
    };
  }

  watch(): void {
    this.watched = true;
    this.follow();
  }

  rest(): void {
    this.watched = false;
    this.follow();
  }

  dispose(): void {
    this.rest();
    this.feed.connectionChanged.disconnect(this.tell, this);
  }

  private follow(): void {
    const wanted = this.watched && this.shown > 0 && !this.ended;
    if (!wanted) {
      this.look?.dispose();
      this.look = null;
    } else if (this.look === null) {
      this.look = this.feed.look('metrics', () => this.id, {
        snapshot: metrics => {
          this.series = new Map();
          this.take(metrics);
        },
        changes: metrics => this.take(metrics),
        problem: problem => this.fail(problem)
      });
    }
  }

  private take(metrics: Metrics): void {
    const series = new Map(this.series);
    for (const change of metrics.series) {
      series.set(change.name, grown(series.get(change.name), change));
    }
    this.series = series;
    this.leftOut = metrics.left_out;
    this.ended = metrics.end;
    this.begun = true;
    this.problem = null;
    if (this.ended) {
      this.follow();
    }
    this.tell();
  }

  private look: IDisposable | null = null;
  private watched = false;
  private shown = 0;
}

function grown(before: Series | undefined, change: MetricSeries): Series {
  const { name, first, samples, count, odd, last } = change;
  return { name, samples: [...(before?.samples.slice(0, first) ?? []), ...samples], count, odd, last };
}
