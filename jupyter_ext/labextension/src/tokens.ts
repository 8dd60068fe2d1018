import { SidePanel } from '@jupyterlab/ui-components';
import { Token } from '@lumino/coreutils';

import { Feed } from './feed';
import { JobsModel } from './model/jobs';
import { StatusModel } from './model/status';
import { Requests } from './requests';

/** The ways to the server that all features share. */
export interface IRemoteExec {
  readonly requests: Requests;
  readonly feed: Feed;
  readonly status: StatusModel;
  readonly jobs: JobsModel;
}

export const IRemoteExec = new Token<IRemoteExec>('remote-exec:IRemoteExec', 'The ways to the server.');

/** The panel in the left area, which features add their section to. */
export interface IRemotePanel {
  readonly panel: SidePanel;
}

export const IRemotePanel = new Token<IRemotePanel>(
  'remote-exec:IRemotePanel',
  'The panel in the left area.'
);
