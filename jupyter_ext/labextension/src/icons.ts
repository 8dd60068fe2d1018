import { LabIcon } from '@jupyterlab/ui-components';

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
<g class="jp-icon3 jp-icon-selectable" fill="#616161">
<path d="M3 4h11v2H5v9h6v2H3z"/><path d="M1 18h12v2H1z"/><path d="M16 8l6 5-6 5v-4h-5v-2h5z"/></g></svg>`;

export const remoteIcon = new LabIcon({ name: 'remote-exec:remote', svgstr: SVG });
