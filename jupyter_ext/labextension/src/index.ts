import { actions } from './plugins/actions';
import { connection } from './plugins/connection';
import { hosts } from './plugins/hosts';
import { jobPage } from './plugins/job_page';
import { jobs } from './plugins/jobs';
import { notifications } from './plugins/notifications';
import { panel } from './plugins/panel';
import { picker } from './plugins/picker';
import { running } from './plugins/running';
import { statusBar } from './plugins/status_bar';

export default [connection, panel, jobs, jobPage, actions, hosts, picker, statusBar, notifications, running];
