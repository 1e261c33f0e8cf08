"""How the HTML report looks, and the little that it does: the filter of the matrix, and light or dark."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{--bg:#f7f7f5;--card:#fff;--ink:#1b1d21;--soft:#5a5f69;--line:#dcdcd6;--code:#f0f0ec;--link:#0b57a4;
--pass:#17693a;--passbg:#e3f3e8;--leak:#b3151f;--leakbg:#fde7e7;--vacuous:#7a5200;--vacuousbg:#fbf0d3;
--inconclusive:#5b3f99;--inconclusivebg:#ece6f9;--t0:#0b57a4;--t1:#a33c00;--t2:#6b2fa0;--t3:#00695c}
:root[data-theme=dark]{--bg:#14161a;--card:#1d2026;--ink:#e8e9ec;--soft:#a6abb6;--line:#343943;--code:#272b33;
--link:#8cc2ff;--pass:#76d69a;--passbg:#153323;--leak:#ff8d8d;--leakbg:#461a1d;--vacuous:#f0c565;--vacuousbg:#3d3013;
--inconclusive:#c4b0ff;--inconclusivebg:#2f2650;--t0:#8cc2ff;--t1:#ffad7d;--t2:#d6aaff;--t3:#6fd9ca}
@media(prefers-color-scheme:dark){:root:not([data-theme=light]){--bg:#14161a;--card:#1d2026;--ink:#e8e9ec;
--soft:#a6abb6;--line:#343943;--code:#272b33;--link:#8cc2ff;--pass:#76d69a;--passbg:#153323;--leak:#ff8d8d;
--leakbg:#461a1d;--vacuous:#f0c565;--vacuousbg:#3d3013;--inconclusive:#c4b0ff;--inconclusivebg:#2f2650;
--t0:#8cc2ff;--t1:#ffad7d;--t2:#d6aaff;--t3:#6fd9ca}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,"Segoe UI",Roboto,sans-serif}
.wrap,main{max-width:68rem;margin:0 auto;padding:0 1.25rem}
a{color:var(--link)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:4px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:1rem;background:var(--card);padding:.5rem 1rem;z-index:2}
.top{border-top:8px solid;background:var(--card);border-bottom:1px solid var(--line);padding:2rem 0 1.5rem}
.top .wrap{position:relative}
.top.pass{border-top-color:var(--pass)}.top.leak{border-top-color:var(--leak)}
.top.vacuous{border-top-color:var(--vacuous)}.top.inconclusive{border-top-color:var(--inconclusive)}
.kicker{margin:0;color:var(--soft)}
h1{margin:.1rem 0;font-size:2.75rem;line-height:1.1;letter-spacing:-.02em}
.pass h1{color:var(--pass)}.leak h1{color:var(--leak)}.vacuous h1{color:var(--vacuous)}
.inconclusive h1{color:var(--inconclusive)}
.lead{margin:.3rem 0 1.2rem;font-size:1.15rem}
.figures{display:flex;flex-wrap:wrap;gap:.6rem 2.2rem;margin:0}
.figures div{display:flex;flex-direction:column-reverse}
.figures dd{margin:0;font-size:1.5rem;font-weight:650;font-variant-numeric:tabular-nums}
.figures dt{color:var(--soft);font-size:.85rem}
.note{margin:1rem 0 0;color:var(--soft)}
#theme{position:absolute;right:1.25rem;top:0;font-size:1.2rem;line-height:1;padding:.5rem .6rem}
button,input{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:8px}
button{cursor:pointer}
h2{margin:2.4rem 0 .8rem;font-size:1.5rem;letter-spacing:-.01em}
.leak[id],.doubts,.faults,.scroll{background:var(--card);border:1px solid var(--line);border-radius:12px}
article.leak[id]{padding:1.1rem 1.3rem;margin:0 0 1rem;border-left:6px solid var(--leak)}
article.leak:target{box-shadow:0 0 0 3px var(--leak)}
h3{margin:0 0 .4rem;font-size:1.15rem}h3 a{text-decoration:none;color:var(--leak);margin-right:.3rem}
.oracle,.surface,.tag{font-size:.8rem;font-weight:500;color:var(--soft);border:1px solid var(--line);
border-radius:99px;padding:.1rem .55rem;white-space:nowrap}
td.surface{border:0;border-bottom:1px solid var(--line);border-radius:0;padding:.45rem .8rem;font-size:.9rem}
p{margin:.3rem 0}.tenants,.seed{color:var(--soft);font-size:.92rem}
.tenant{font-family:ui-monospace,Consolas,monospace;font-size:.9em;padding:.05rem .5rem;border-radius:6px;
border:1.5px solid currentColor;white-space:pre}
.t0{color:var(--t0)}.t1{color:var(--t1)}.t2{color:var(--t2)}.t3{color:var(--t3)}
code{font-family:ui-monospace,Consolas,monospace;font-size:.9em;background:var(--code);padding:.1rem .35rem;
border-radius:5px;overflow-wrap:anywhere}
.steps{margin:.8rem 0;padding-left:1.6rem}.steps li{padding:.3rem 0 .3rem .3rem}
.steps li::marker{color:var(--soft);font-variant-numeric:tabular-nums}
.steps .last{font-weight:600}.answer{color:var(--soft)}
.versus{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:.8rem;margin:.6rem 0}
.versus div{border-radius:8px;padding:.6rem .8rem}.versus h4{margin:0 0 .2rem;font-size:.85rem}
.versus code{background:none;padding:0}
.got{background:var(--leakbg);color:var(--leak)}.want{background:var(--passbg);color:var(--pass)}
.tools{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:0 0 .8rem}
.tools button{padding:.35rem .75rem}.tools button[aria-pressed=true]{border-color:currentColor;font-weight:650}
.tools input{padding:.35rem .6rem;width:12rem}.tools label{margin-left:auto;color:var(--soft)}
.tools .pass,td.pass{color:var(--pass)}.tools .leak,td.leak{color:var(--leak)}
.tools .vacuous,td.vacuous{color:var(--vacuous)}.tools .inconclusive,td.inconclusive{color:var(--inconclusive)}
#count{color:var(--soft);font-size:.9rem}
.scroll{overflow:auto;max-height:80vh}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.95rem}
th,td{text-align:left;padding:.45rem .8rem;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{position:sticky;top:0;background:var(--card);color:var(--soft);font-size:.85rem;font-weight:600}
thead abbr{text-decoration:underline dotted;text-underline-offset:3px}
tbody th{font-family:ui-monospace,Consolas,monospace;font-size:.9rem;font-weight:600}
tbody tr:hover{background:var(--code)}tr[hidden]{display:none}
td.leak{background:var(--leakbg)}td.vacuous{background:var(--vacuousbg)}td.inconclusive{background:var(--inconclusivebg)}
td.leak a{color:inherit;font-weight:700}
.word{margin-left:.4rem;font-size:.85rem}td.none{color:var(--soft)}
details{margin:.8rem 0}summary{cursor:pointer;color:var(--soft)}
.legend div{display:grid;grid-template-columns:7rem 1fr;margin:.2rem 0}.legend dt{font-weight:600}.legend dd{margin:0}
.doubts,.faults{list-style:none;margin:0;padding:.4rem 1.2rem}
.doubts li,.faults li{padding:.55rem 0;border-bottom:1px solid var(--line)}
.doubts li:last-child,.faults li:last-child{border:0}
.places{display:block;color:var(--soft);font-size:.9rem}
.tag.found{color:var(--pass)}.tag.missed,.tag.leak{color:var(--leak)}.tag.vacuous{color:var(--vacuous)}
.tag.inconclusive{color:var(--inconclusive)}
.faults{columns:2 20rem;column-gap:2rem}.faults li{break-inside:avoid}.faults .tag{margin-left:.5rem}
.faults .unused{color:var(--soft)}
footer{margin-top:3rem;border-top:1px solid var(--line);padding:1rem 0 2rem;color:var(--soft);font-size:.9rem}
@media print{.tools,#theme,.skip{display:none}.scroll{max-height:none;overflow:visible}body{background:#fff}}
"""

SCRIPT: Final = """
(function(){
var root=document.documentElement,theme=document.getElementById('theme');
theme.addEventListener('click',function(){
var dark=root.dataset.theme?root.dataset.theme==='dark':matchMedia('(prefers-color-scheme:dark)').matches;
root.dataset.theme=dark?'light':'dark'});
var rows=[].slice.call(document.querySelectorAll('tbody tr')),find=document.getElementById('find');
var buttons=[].slice.call(document.querySelectorAll('.tools button')),count=document.getElementById('count');
function show(){
var wanted=buttons.filter(function(b){return b.getAttribute('aria-pressed')==='true'})
.map(function(b){return b.dataset.verdict});
var text=find.value.trim().toLowerCase(),seen=0;
rows.forEach(function(row){
var has=row.dataset.verdicts.split(' ');
var fits=!wanted.length||wanted.some(function(v){return has.indexOf(v)>=0});
row.hidden=!(fits&&row.dataset.name.indexOf(text)>=0);
if(!row.hidden)seen++});
count.textContent=seen===rows.length?'':seen+' of '+rows.length+' rows'}
buttons.forEach(function(b){b.addEventListener('click',function(){
b.setAttribute('aria-pressed',b.getAttribute('aria-pressed')==='true'?'false':'true');show()})});
find.addEventListener('input',show);
})();
"""
