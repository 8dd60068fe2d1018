import { IDisposable } from '@lumino/disposable';

import { Feed } from '../feed';
import { Host, Problem } from '../types';
import { Model } from './signalling';

/** Hosts with their pools and workers, kept up to date while somebody watches. */
export class HostsModel extends Model {
  constructor(private readonly feed: Feed) {
    super();
    feed.connectionChanged.connect(() => this.tell());
  }

  hosts: Host[] | null = null;
  problem: Problem | null = null;

  get isLive(): boolean {
    return this.feed.connection === 'open' && this.problem === null;
  }

  watch(): void {
    this.look ??= this.feed.look('hosts', () => ({}), {
      snapshot: ({ hosts }) => {
        this.hosts = hosts;
        this.problem = null;
        this.tell();
      },
      problem: problem => {
        this.problem = problem;
        this.tell();
      }
    });
  }

  rest(): void {
    this.look?.dispose();
    this.look = null;
  }

  private look: IDisposable | null = null;
}
