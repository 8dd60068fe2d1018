import { IDisposable } from '@lumino/disposable';

import { Feed } from '../feed';
import { JobDetail, JobId } from '../types';
import { FedModel } from './fed';
import { LogModel } from './log';

/** One job with its log, kept up to date while somebody watches. */
export class JobModel extends FedModel {
  constructor(
    feed: Feed,
    readonly id: JobId
  ) {
    super(feed);
  }

  readonly log = new LogModel();
  detail: JobDetail | null = null;

  watch(): void {
    if (this.looks.length > 0) {
      return;
    }
    const { log } = this;
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
  }

  dispose(): void {
    this.rest();
    this.feed.connectionChanged.disconnect(this.tell, this);
  }

  private looks: IDisposable[] = [];
}
