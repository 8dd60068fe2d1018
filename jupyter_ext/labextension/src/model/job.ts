import { IDisposable } from '@lumino/disposable';

import { Feed } from '../feed';
import { JobDetail, JobId } from '../types';
import { FedModel } from './fed';
import { LogModel } from './log';
import { MetricsModel } from './metrics';

/** One job with its log, kept up to date while somebody watches. */
export class JobModel extends FedModel {
  constructor(
    feed: Feed,
    readonly id: JobId
  ) {
    super(feed);
    this.metrics = new MetricsModel(feed, id);
  }

  readonly log = new LogModel();
  readonly metrics: MetricsModel;
  detail: JobDetail | null = null;

  watch(): void {
    if (this.looks.length > 0) {
      return;
    }
    const { log } = this;
    this.metrics.watch();
    this.looks.push(
      this.feed.look('job', () => this.id, {
        snapshot: detail => {
          this.detail = detail;
          this.problem = null;
          this.tell();
        },
        problem: problem => this.fail(problem)
      })
    );
    if (!log.ended) {
      this.looks.push(
        this.feed.look('logs', () => ({ ...this.id, from: log.next }), {
          snapshot: piece => log.add(piece),
          changes: piece => log.add(piece),
          problem: problem => log.fail(problem)
        })
      );
    }
  }

  rest(): void {
    this.looks.splice(0).forEach(look => look.dispose());
    this.metrics.rest();
  }

  dispose(): void {
    this.rest();
    this.metrics.dispose();
    this.feed.connectionChanged.disconnect(this.tell, this);
  }

  private looks: IDisposable[] = [];
}
