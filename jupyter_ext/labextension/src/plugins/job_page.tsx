import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { SplitPanel, TabPanel, Widget } from '@lumino/widgets';
import * as React from 'react';

import { actionsOf, CommandIDs, namedJob } from '../commands';
import { titleOf } from '../format';
import { remoteIcon } from '../icons';
import { JobModel } from '../model/job';
import { IRemoteExec } from '../tokens';
import { JobId } from '../types';
import { JobPage } from '../view/job';
import { ModelWidget } from '../view/widget';

/** A page in the main area for one job. */
export const jobPage: JupyterFrontEndPlugin<void> = {
  id: 'remote-exec:job-page',
  description: 'A page in the main area for one job.',
  autoStart: true,
  requires: [IRemoteExec],
  optional: [ILayoutRestorer],
  activate: (app: JupyterFrontEnd, remote: IRemoteExec, restorer: ILayoutRestorer | null) => {
    const tracker = new WidgetTracker<MainAreaWidget<JobWidget>>({ namespace: 'remote-exec-job' });
    app.commands.addCommand(CommandIDs.open, {
      label: 'Open the Job',
      icon: remoteIcon,
      isEnabled: args => Boolean(args['name']) || remote.jobs.selected !== null,
      execute: async args => {
        const id = namedJob(args) ?? remote.jobs.selected;
        if (id === null) {
          return;
        }
        let widget = tracker.find(
          ({ content }) => content.job.name === id.name && content.job.host === id.host
        );
        if (widget === undefined) {
          widget = pageOf(app, remote, { host: id.host, name: id.name });
          await tracker.add(widget);
        }
        show(app, widget);
      }
    });
    void restorer?.restore(tracker, {
      command: CommandIDs.open,
      args: ({ content }) => ({ ...content.job }),
      name: ({ content }) => `${content.job.host}/${content.job.name}`
    });
  }
};

/**
 * Show a page where the front end has room for it.
 *
 * A page of Notebook 7 has one main widget and takes no second one: on the page of files that has tabs, and elsewhere
 * there is the area below it.
 */
function show(app: JupyterFrontEnd, page: Widget): void {
  if (!page.isAttached) {
    app.shell.add(page, 'main', { type: 'Remote job' });
  }
  if (!page.isAttached) {
    const [main] = app.shell.widgets('main');
    if (main instanceof TabPanel) {
      main.addWidget(page);
    } else {
      app.shell.add(page, 'down');
    }
  }
  const tabs = page.parent?.parent;
  const wasHidden = tabs?.isHidden;
  app.shell.activateById(page.id);
  if (tabs instanceof TabPanel) {
    tabs.currentWidget = page;
    if (wasHidden && tabs.parent instanceof SplitPanel) {
      tabs.parent.setRelativeSizes([1, 1]); // it would be as high as its tabs
    }
  }
}

/** A job's page. */
class JobWidget extends ModelWidget {
  constructor(
    private readonly jobModel: JobModel,
    draw: () => React.JSX.Element
  ) {
    super(jobModel, draw);
  }

  get job(): JobId {
    return this.jobModel.id;
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this.jobModel.dispose();
    }
    super.dispose();
  }
}

function pageOf(app: JupyterFrontEnd, remote: IRemoteExec, id: JobId): MainAreaWidget<JobWidget> {
  const model = new JobModel(remote.feed, id);
  const actions = actionsOf(app.commands);
  const content = new JobWidget(model, () => <JobPage model={model} actions={actions} />);
  const widget = new MainAreaWidget({ content });
  widget.id = `remote-exec-job-${id.host}-${id.name}`;
  widget.toolbar.hide();
  widget.title.label = id.name;
  widget.title.caption = `Job ${id.name} on ${id.host}`;
  widget.title.icon = remoteIcon;
  widget.title.closable = true;
  model.changed.connect(() => {
    widget.title.label = model.detail ? titleOf(model.detail.job) : id.name;
  });
  return widget;
}
