"""The gallery's style sheet. Text and its background keep a contrast of 4.5 or more (WCAG 2.2 AA), in light and in dark."""

LIGHT = {
    "page": "#f4f5f7",
    "card": "#ffffff",
    "mat": "#e7e9ed",
    "line": "#d9dde3",
    "text": "#16191d",
    "muted": "#57606c",
    "accent": "#2456c7",
    "bad": "#b3261e",
    "good": "#1b6b3a",
}
DARK = {
    "page": "#0e1116",
    "card": "#171b22",
    "mat": "#0a0c10",
    "line": "#2b323c",
    "text": "#e9ecf0",
    "muted": "#9ba6b4",
    "accent": "#7fa8ff",
    "bad": "#ff9d94",
    "good": "#7fd6a0",
}


def _variables(colours: dict[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{colour};" for name, colour in colours.items()) + "}"


_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main{max-width:1480px;margin:0 auto;padding:0 clamp(16px,3vw,40px)}
header{padding-top:clamp(24px,4vw,48px)}
.brand{margin:0;color:var(--accent);font-weight:650;letter-spacing:.02em}
h1{margin:.1em 0 .7em;font-size:clamp(1.6rem,1.1rem + 2vw,2.5rem);line-height:1.15;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{margin:0;font-size:1.3rem;letter-spacing:-.01em}
dl,dd,dt,ul{margin:0;padding:0}
ul{list-style:none}
section{margin:clamp(36px,5vw,56px) 0}
.muted{color:var(--muted)}
section>p.muted{margin:.2em 0 1em}
code{font:.92em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.tiles{display:flex;flex-wrap:wrap;gap:1px;overflow:hidden;border:1px solid var(--line);border-radius:12px;
  background:var(--line)}
.tiles div{flex:1 1 140px;display:flex;flex-direction:column-reverse;padding:14px 18px;background:var(--card)}
.tiles dt{color:var(--muted);font-size:.87rem}
.tiles dd{font-size:1.6rem;font-weight:620;line-height:1.25;letter-spacing:-.01em;font-variant-numeric:tabular-nums}
.tiles .bad dd{color:var(--bad)}
.tiles .good dd{color:var(--good)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:6px 32px;margin-top:20px;
  font-size:.93rem}
.facts div{display:grid;grid-template-columns:72px 1fr;gap:12px}
.facts dt{color:var(--muted)}
.facts dd{min-width:0;overflow-wrap:anywhere}
.samples{display:grid;grid-template-columns:1fr auto auto;align-items:center;column-gap:10px}
.samples>p,.samples>.grid{grid-column:1/-1}
.samples>label{font-weight:550;cursor:pointer}
.switch{appearance:none;width:40px;height:24px;margin:0;border-radius:12px;background:var(--muted);cursor:pointer;
  position:relative}
.switch:before{content:"";position:absolute;top:3px;left:3px;width:18px;height:18px;border-radius:50%;
  background:var(--card);transition:transform .15s}
.switch:checked{background:var(--accent)}
.switch:checked:before{transform:translateX(16px)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:20px}
.card{display:flex;flex-direction:column;min-width:0;max-width:640px;overflow:hidden;border:1px solid var(--line);
  border-radius:12px;background:var(--card)}
.shot{position:relative;display:block;aspect-ratio:4/3;background:var(--mat);cursor:pointer}
.shot input{position:absolute;opacity:0;inset:0;width:100%;height:100%;margin:0;cursor:pointer;z-index:1}
.shot img{position:absolute;inset:0;width:100%;height:100%;object-fit:contain}
.masked{transition:opacity .15s}
.shot input:checked~.masked,#masks:not(:checked)~.grid .shot input:not(:checked)~.masked{opacity:0}
#masks:not(:checked)~.grid .shot input:checked~.masked{opacity:1}
:focus-visible,.shot:has(input:focus-visible){outline:3px solid var(--accent);outline-offset:2px}
.shot:has(input:focus-visible){outline-offset:-3px}
.task{position:absolute;top:10px;left:10px;padding:1px 9px;border-radius:9px;background:#000a;color:#fff;
  font-size:.78rem;font-weight:550}
.card h3{margin:12px 16px 0;font-size:1rem;font-weight:620;overflow-wrap:anywhere}
.folder{margin:0 16px;color:var(--muted);font-size:.8rem;overflow-wrap:anywhere}
.legend{display:flex;flex-wrap:wrap;gap:6px;margin:10px 16px 16px}
.legend li{display:inline-flex;align-items:baseline;gap:6px;max-width:100%;padding:1px 9px;border:1px solid var(--line);
  border-radius:8px;font-size:.84rem}
.legend i{flex:none;width:11px;height:11px;border-radius:3px;box-shadow:inset 0 0 0 1px #0003}
.legend bdi{min-width:0;overflow-wrap:anywhere}
.legend b{font-weight:550}
.legend span,.legend .none{color:var(--muted);font-variant-numeric:tabular-nums}
.bars{columns:3 380px;column-gap:48px}
.bars li{display:grid;grid-template-columns:minmax(0,9em) 1fr auto;gap:12px;align-items:center;padding:4px 0;
  break-inside:avoid;font-size:.93rem}
.name{overflow-wrap:anywhere;line-height:1.25}
.track{height:14px;border-radius:4px;background:var(--line);overflow:hidden}
.track i{display:block;height:100%;min-width:2px;border-radius:4px;background:var(--accent)}
.figure{min-width:4em;text-align:right;font-variant-numeric:tabular-nums}
#stages .bars{columns:1;max-width:720px}
#stages .figure{min-width:6em}
details{margin-top:10px}
summary{margin-bottom:6px;color:var(--accent);font-weight:550;cursor:pointer}
.empty{margin:.8em 0 0;padding:20px 22px;border:1px solid var(--line);border-radius:12px;background:var(--card);
  color:var(--muted)}
.empty.good{color:var(--good)}
table{width:100%;border-collapse:separate;border-spacing:0;margin-top:1em;overflow:hidden;border:1px solid var(--line);
  border-radius:12px;background:var(--card);font-size:.93rem}
th,td{padding:10px 18px;text-align:left;vertical-align:top;font-weight:400;overflow-wrap:anywhere}
thead th{color:var(--muted);font-size:.84rem}
tbody td,tbody th{border-top:1px solid var(--line)}
tbody th{width:11em}
tbody th code{display:block;color:var(--bad);font-weight:600}
tbody th span{color:var(--muted);font-size:.84rem}
td.uri{width:45%;font:.84rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(max-width:640px){
.shot{aspect-ratio:auto}
.shot .plain{position:static;height:auto;max-height:500px;display:block}
thead{position:absolute;clip-path:inset(50%);width:1px;height:1px}
table,tbody,tr,tbody th,td{display:block}
tbody th,td.uri,td{width:auto}
tbody th{padding-bottom:0}
tbody th code{display:inline;margin-right:8px}
tbody th+td,td+td{border-top:0}
tbody td.uri:first-child{padding-top:12px}
td.uri{padding-bottom:2px}
td+td{padding-top:0}
}
@media(prefers-reduced-motion:reduce){*{transition:none!important}}
"""

STYLE = _variables(LIGHT) + "@media(prefers-color-scheme:dark){" + _variables(DARK) + "}" + _RULES
