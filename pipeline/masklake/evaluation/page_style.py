"""The style sheet of an evaluation's page: the gallery's, and what that has no need of."""

from masklake.pages.style import STYLE as _GALLERY

_RULES = """
.tiles div:first-child dd{color:var(--accent)}
.note{max-width:75em;margin:12px 0 0;color:var(--muted);font-size:.93rem}
h3{margin:1.4em 0 0;font-size:1rem;font-weight:620}
h3+p.muted{margin:.1em 0 .6em;font-size:.93rem}
.names{margin:0}
.names li{background:var(--card)}
.names span{min-width:0;overflow-wrap:anywhere}
.pairs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,620px),1fr));gap:20px}
.pair{min-width:0;max-width:960px;overflow:hidden;border:1px solid var(--line);border-radius:12px;background:var(--card)}
.pair .title{display:flex;justify-content:space-between;gap:16px;padding:12px 16px}
.pair h3,.pair .folder{margin:0;overflow-wrap:anywhere}
.pair .title div{min-width:0}
.pair .bad{color:var(--bad)}
.score{flex:none;margin:0;font-size:1.5rem;font-weight:620;line-height:1.3;font-variant-numeric:tabular-nums}
.sides{display:grid;grid-template-columns:1fr 1fr;gap:2px}
figure{min-width:0;margin:0}
figcaption{padding:0 16px 6px;color:var(--muted);font-size:.84rem}
.side{display:block;width:100%;height:auto;aspect-ratio:4/3;object-fit:contain;background:var(--mat)}
.tiles a{color:inherit;text-decoration-thickness:1px;text-underline-offset:4px}
.wide{width:fit-content;max-width:100%;margin-top:1em;overflow-x:auto;
  border:1px solid var(--line);border-radius:12px;background:var(--card)}
.wide table{width:auto;margin:0;border:0;border-radius:0}
.figures th,.figures td{padding:6px 16px;overflow-wrap:normal}
.figures td,.figures thead th+th{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.figures tbody th{width:auto;min-width:8em;overflow-wrap:anywhere}
.confused{display:flex;flex-wrap:wrap;gap:4px 28px;font-size:.93rem}
.confused li{overflow-wrap:anywhere}
.matrix{width:auto;font-size:.8rem}
.matrix th,.matrix td{padding:0;border:0}
.matrix thead th{vertical-align:bottom;font-size:.8rem}
.matrix thead th:first-child{padding:0 12px 6px;color:var(--muted)}
.matrix thead span{display:inline-block;max-height:8em;padding:6px 0;writing-mode:vertical-rl;transform:rotate(180deg);
  overflow:hidden;white-space:nowrap;text-overflow:ellipsis}
.matrix thead th+th{text-align:center}
.matrix tbody th{position:sticky;left:0;width:auto;max-width:12em;padding:0 12px;background:var(--card);white-space:nowrap;overflow:hidden;
  text-overflow:ellipsis;vertical-align:middle}
.matrix td{min-width:34px;height:30px;text-align:center;vertical-align:middle;font-variant-numeric:tabular-nums;
  box-shadow:inset 0 0 0 1px var(--line)}
.matrix .right{background:color-mix(in srgb,var(--accent) calc(var(--share)*45%),transparent)}
.matrix .wrong{background:color-mix(in srgb,var(--bad) calc(var(--share)*45%),transparent)}
@media(max-width:640px){
.wide thead{position:static;clip-path:none;width:auto;height:auto}
.wide table{display:table}
.wide thead{display:table-header-group}
.wide tbody{display:table-row-group}
.wide tr{display:table-row}
.wide th,.wide td,.wide tbody th{display:table-cell}
.figures th,.figures td,.wide tbody .figures th{padding:6px 10px}
.matrix tbody th{max-width:8em}
.sides .legend{margin:8px 8px 12px}
}
"""

STYLE = _GALLERY + _RULES
