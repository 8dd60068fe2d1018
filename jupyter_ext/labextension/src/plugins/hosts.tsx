import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import * as React from 'react';

import { HostsModel } from '../model/hosts';
import { told } from '../requests';
import { IRemoteExec, IRemotePanel } from '../tokens';
import { HostsView } from '../view/hosts';
import { ModelWidget } from '../view/widget';

const ID = 'remote-exec:hosts';

/** Hosts and their warm workers in the panel. */
export const hosts: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'Hosts and their warm workers in the panel.',
  autoStart: true,
  requires: [IRemoteExec, IRemotePanel],
  optional: [ISettingRegistry],
  activate: (
    _app: JupyterFrontEnd,
    { feed, requests }: IRemoteExec,
    { panel }: IRemotePanel,
    settings: ISettingRegistry | null
  ) => {
    const model = new HostsModel(feed);
    const keepSeconds = async () =>
      60 * Number(settings === null ? 60 : (await settings.load(ID)).composite['keepWarmMinutes']);
    const tryTo = (act: () => Promise<unknown>) =>
      void act().catch((error: unknown) => Notification.error(told(error), { autoClose: 8000 }));
    const actions = {
      keep: (host: string, pool: string) => tryTo(async () => requests.keep(host, pool, await keepSeconds())),
      release: (host: string, pool: string) => tryTo(() => requests.release(host, pool))
    };
    const section = new ModelWidget(model, () => <HostsView model={model} actions={actions} />);
    section.id = 'remote-exec-hosts';
    section.title.label = 'Hosts';
    panel.addWidget(section);
  }
};
