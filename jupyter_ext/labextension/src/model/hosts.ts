import { IDisposable } from '@lumino/disposable';

import { Host } from '../types';
import { FedModel } from './fed';

/** Hosts with their pools and workers, kept up to date while somebody watches. */
export class HostsModel extends FedModel {
  hosts: Host[] | null = null;

  watch(): void {
    this.look ??= this.feed.look('hosts', () => ({}), {
      snapshot: ({ hosts }) => {
        this.hosts = hosts;
        this.problem = null;
        this.tell();
      },
      problem: problem => this.fail(problem)
    });
  }

  rest(): void {
    this.look?.dispose();
    this.look = null;
  }

  private look: IDisposable | null = null;
}
