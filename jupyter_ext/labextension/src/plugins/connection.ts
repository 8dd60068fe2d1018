import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';

import { Feed } from '../feed';
import { JobsModel } from '../model/jobs';
import { StatusModel } from '../model/status';
import { problemOf, Requests } from '../requests';
import { IRemoteExec } from '../tokens';
import { Problem } from '../types';

/** Provides the ways to the server. */
export const connection: JupyterFrontEndPlugin<IRemoteExec> = {
  id: 'remote-exec:connection',
  description: 'Provides the ways to the server.',
  autoStart: true,
  provides: IRemoteExec,
  activate: (app: JupyterFrontEnd): IRemoteExec => {
    const { serverSettings } = app.serviceManager;
    const requests = new Requests(serverSettings);
    const feed = new Feed(
      () => new serverSettings.WebSocket(requests.changesUrl()),
      () => whyClosed(requests)
    );
    return { requests, feed, status: new StatusModel(feed), jobs: new JobsModel(feed) };
  }
};

/** A websocket does not say why it does not open; a request does. */
async function whyClosed(requests: Requests): Promise<Problem> {
  try {
    await requests.status();
    return { message: "The connection to Jupyter's server broke; it is made again.", hint: '', status: 0 };
  } catch (error) {
    return problemOf(error);
  }
}
