"""How the page looks: light and dark, on a wide screen and on a phone, where the first table becomes cards."""

CARDS = """.cards thead{display:none}
.cards,.cards th,.cards td{display:block}
.cards tbody{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:.8rem}
.cards tr{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:.35rem 1rem;align-content:start;
padding:.6rem .9rem;background:var(--soft);border-radius:8px}
.cards tbody th,.cards td{padding:0;border:0;text-align:left}
.cards tbody th{grid-column:1/-1;font-size:1.05rem}
.cards td::before{content:attr(data-head);display:block;font-size:.78rem;color:var(--quiet)}
.cards .diff::before{content:"to FedAvg "}
.cards .n,.cards td small{white-space:normal}
.cards .sd{display:inline-block}
.cards .bar{max-width:8rem;min-width:0}
"""
"""A table as cards, one a row."""

STYLE = """
:root{--paper:#fff;--ink:#1b1b1f;--quiet:#5b5b66;--line:#dedee5;--soft:#f5f5f8;--mark:#0072b2;--warn:#fff4e0;--edge:#d98b00}
@media(prefers-color-scheme:dark){:root{--paper:#16161a;--ink:#ececf1;--quiet:#a4a4b0;--line:#33333d;--soft:#202027;
--mark:#6cb6e8;--warn:#33280f;--edge:#c98a1b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:76rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
.kicker{margin:0;color:var(--quiet);font-size:.85rem}
h1{margin:0 0 .25rem;font-size:1.7rem;line-height:1.2;overflow-wrap:anywhere}
h2{margin:2.5rem 0 .5rem;font-size:1.2rem}
h3{margin:2rem 0 .25rem;font-size:1.05rem}
.lead{margin:.25rem 0 1.25rem;color:var(--quiet)}
.note,figcaption,small,.sd{color:var(--quiet);overflow-wrap:anywhere}
.note{font-size:.88rem;max-width:48rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.5rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;font-weight:400}
thead th{color:var(--quiet);font-size:.82rem;vertical-align:bottom;border-bottom:2px solid var(--line);line-height:1.25}
tbody th{min-width:13rem;font-weight:650;overflow-wrap:anywhere}
.n{text-align:right;white-space:nowrap}
thead .n{white-space:normal}
small{display:block;font-weight:400;font-size:.8rem}
td small{white-space:nowrap;margin-top:.1rem}
.small{width:auto;min-width:min(100%,38rem);margin-bottom:1rem}
.bar{display:block;height:4px;margin-top:.3rem;min-width:5rem;background:var(--line);border-radius:2px;overflow:hidden}
.bar i{display:block;height:100%;background:var(--mark)}
.clock th,.clock td{padding:.5rem .4rem}
.wide{overflow-x:auto}
.wide tbody th{min-width:0}
.wide td,.wide th{white-space:nowrap;padding:.3rem .6rem;font-size:.88rem}
.notice{margin:0 0 1.25rem;padding:.6rem 1rem;background:var(--warn);
border-left:4px solid var(--edge);border-radius:4px;overflow-wrap:anywhere}
.notice p,.notice ul{margin:.1rem 0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));
gap:1.25rem;margin:2rem 0 1.5rem}
figure{margin:0}
img{display:block;width:100%;height:auto;padding:.6rem;background:#fff;border:1px solid var(--line);border-radius:8px}
figcaption{margin-top:.45rem;font-size:.86rem;line-height:1.4}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.35rem 1.25rem;margin:.5rem 0 1.25rem}
dt{color:var(--quiet)}
dd{margin:0;overflow-wrap:anywhere;min-width:0}
code,pre{font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
details{margin:.5rem 0}
summary{cursor:pointer;color:var(--mark);overflow-wrap:anywhere}
pre{margin:.5rem 0;padding:.8rem 1rem;overflow-x:auto;background:var(--soft);border-radius:8px}
@media(max-width:74rem){
%CARDS%}
@media(max-width:80rem){
%CLOCK%}
@media(max-width:46rem){
main{padding:1rem 1rem 3rem}
.small th,.small td{padding:.4rem .25rem;font-size:.85rem}
.small tbody th{min-width:0}
.small .n{white-space:normal}
.small .sd{display:inline-block}
img{padding:.25rem}
dl{grid-template-columns:1fr;gap:0}
dt{margin-top:.6rem}
}
""".replace("%CARDS%", CARDS).replace("%CLOCK%", CARDS.replace(".cards", ".clock"))
"""A table that has the clock's columns needs more room before it is one."""
