import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import * as React from 'react';

import { actionsOf } from '../commands';
import { JobsQuery } from '../types';
import { IRemoteExec, IRemotePanel } from '../tokens';
import { JobsView } from '../view/jobs';
import { ModelWidget } from '../view/widget';

const ID = 'remote-exec:jobs';

/** The list of jobs in the panel. */
export const jobs: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'The list of jobs in the panel.',
  autoStart: true,
  requires: [IRemoteExec, IRemotePanel],
  optional: [ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    { jobs: model }: IRemoteExec,
    { panel }: IRemotePanel,
    settings: ISettingRegistry | null
  ) => {
    const actions = actionsOf(app.commands);
    const section = new ModelWidget(model, () => <JobsView model={model} actions={actions} />);
    section.id = 'remote-exec-jobs';
    section.title.label = 'Jobs';
    section.addClass('jp-RemoteExec-jobsSection');
    panel.insertWidget(0, section);
    const prepared = settings?.load(ID).then(loaded => {
      model.filter = { ...model.filter, group: loaded.composite['group'] as JobsQuery['group'] };
    });
    void Promise.all([prepared, app.restored]).then(() => model.glance());
  }
};
