"""How the report looks: one style sheet for light, dark, phone, desktop and paper."""

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1c2128;--soft:#5d6773;--line:#dfe3e8;--a:#2563eb;
  --c:#e07a10;--d:#12966a;--e:#a445c9;--f:#b8860b;--g:#0891b2;--h:#8a5a44;
  --hit:37 99 235;--miss:220 60 40;--warn:#b42318}
@media screen and (prefers-color-scheme:dark){
  :root{--page:#0f1216;--card:#181c22;--text:#e4e8ed;--soft:#98a3b0;--line:#2c333c;--a:#6ea0ff;--c:#ffa64d;
    --d:#3fcf9c;--e:#d18bf0;--f:#e3b341;--g:#4cc9e8;--h:#c99a82;--hit:70 130 245;--miss:226 74 54;--warn:#ff8a7a}
}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main{max-width:1200px;margin:0 auto;padding:0 16px}
header{padding-top:28px}
h1{font-size:1.75rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .4rem}
h3{font-size:1rem;margin:1.6rem 0 .4rem}
h2+h3{margin-top:.6rem}
h4{font-size:.9rem;margin:1.2rem 0 .4rem;overflow-wrap:anywhere}
h4 small,header p,.note{color:var(--soft)}
h4 small{font-weight:400;font-size:.85rem;margin-left:.4rem}
header p{margin:.2rem 0 .8rem}
.note{font-size:.87rem;margin:.2rem 0 .7rem}
.warning{color:var(--warn);font-weight:600}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin-bottom:16px}
a{color:var(--a);text-decoration:none}
a:hover{text-decoration:underline}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px;margin:16px 0;
  scroll-margin-top:8px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(112px,1fr));gap:10px;margin:0 0 .6rem}
.cards div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 12px}
.cards dt{color:var(--soft);font-size:.8rem}
.cards dd{margin:0;font-size:1.45rem;font-weight:650;line-height:1.25;white-space:nowrap}
.cards small{font-size:.75rem;font-weight:400;color:var(--soft)}
.cards p{margin:0;font-size:.75rem;color:var(--soft)}
.cards div:first-child dd{color:var(--a)}
.cards,.scores,.bars,.heat,.plot{font-variant-numeric:tabular-nums}
figure{margin:0}
.beside{display:flex;flex-wrap:wrap;gap:4px 36px}
.beside>div{flex:1 1 400px;min-width:0}
.beside h3{margin-top:.6rem}
#confusion .beside>:first-child{flex:0 1 auto}
.chart figcaption{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:.82rem;color:var(--soft);margin-bottom:12px}
.chart figcaption span::before{content:"";display:inline-block;width:16px;border-top:3px solid var(--k);
  vertical-align:middle;margin-right:6px}
.chart figcaption .lr::before{border-top-style:dotted}
.plot{position:relative;height:250px;margin:0 10px 26px 46px}
.twin .plot{margin-right:56px}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
.plot span{position:absolute;font-size:.75rem;line-height:1;color:var(--soft);white-space:nowrap}
.plot .y{right:100%;margin-right:8px;transform:translateY(50%)}
.plot .r{left:100%;margin-left:8px;transform:translateY(50%)}
.plot .x{top:100%;margin-top:9px;transform:translateX(-50%)}
.plot path{fill:none;stroke:var(--k,var(--line));stroke-width:2;stroke-linejoin:round;stroke-linecap:round;
  vector-effect:non-scaling-stroke}
.plot path.grid{stroke:var(--line);stroke-width:1}
.plot path.dot{stroke-width:8}
.a{--k:var(--a)}
.c{--k:var(--c)}
.d{--k:var(--d)}
.e{--k:var(--e)}
.f{--k:var(--f)}
.g{--k:var(--g)}
.h{--k:var(--h)}
.lr{--k:var(--soft)}
.plot .faint path{stroke-width:1;opacity:.4}
.plot .lr path{stroke-width:1.5;stroke-dasharray:1 5}
.bars{list-style:none;margin:0;padding:0}
.bars.many{columns:330px auto;column-gap:28px;font-size:.85rem}
.bars li{display:grid;grid-template-columns:minmax(84px,24%) 1fr 48px;gap:10px;align-items:center;padding:2px 0;
  break-inside:avoid}
.bars.many li{grid-template-columns:38% 1fr 46px;padding:0}
.bars span,.heat th{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.bars em{font-style:normal;text-align:right}
.bars b{background:color-mix(in srgb,var(--line) 55%,transparent);border-radius:3px;height:14px;overflow:hidden}
.bars.many b{height:10px}
.bars i{display:block;height:100%;min-width:2px;border-radius:3px}
.bars i,.swatch{box-shadow:inset 0 0 0 1px color-mix(in srgb,var(--text) 35%,transparent)}
.absent{color:var(--soft)}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:3px;margin-right:.5em;vertical-align:-.05em}
.wide{overflow-x:auto}
.tall{max-height:34rem;overflow-y:auto;border:1px solid var(--line);border-radius:6px}
table{border-collapse:separate;border-spacing:0;font-size:.87rem}
.scores{width:100%}
.scores td,.scores th{padding:4px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;
  font-weight:400}
.scores thead th{color:var(--soft);position:sticky;top:0;z-index:1;background:var(--card)}
.scores tbody th{position:sticky;left:0;background:var(--card)}
.scores tr>:first-child,.pairs tr>:nth-child(2){text-align:left}
.scores tbody tr:hover>*{background:var(--page)}
.heat{font-size:.72rem;line-height:1}
.heat td{width:29px;min-width:29px;height:25px;text-align:center;padding:0;border:1px solid var(--card);
  border-radius:5px}
.heat th{font-weight:400;color:var(--soft)}
.heat tbody th{position:sticky;left:0;background:var(--card);text-align:right;padding:0 8px;max-width:130px}
.heat thead th{height:104px;vertical-align:bottom;padding:0 0 6px;overflow:visible}
.heat thead span{writing-mode:vertical-rl;transform:rotate(180deg);max-height:98px;overflow:hidden;
  text-overflow:ellipsis}
.heat td.corner{text-align:right;vertical-align:bottom;padding:0 8px 6px;color:var(--soft);white-space:nowrap;
  position:sticky;left:0;background:var(--card)}
.heat tbody td{background:color-mix(in srgb,var(--line) 25%,transparent)}
.heat td.hit{background:rgb(var(--hit)/var(--v))}
.heat td.miss{background:rgb(var(--miss)/var(--v))}
.heat td.strong{color:#fff}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:3px 16px;padding:0;margin:.5rem 0;font-size:.87rem}
summary{cursor:pointer;color:var(--soft);font-size:.9rem}
.panels{display:grid;grid-template-columns:repeat(4,1fr);gap:8px}
.panels img{display:block;width:100%;border-radius:5px;cursor:zoom-in}
.panels figcaption{font-size:.78rem;color:var(--soft)}
.panels .close{display:none}
article{scroll-margin-top:12px}
.panels figure:target{position:fixed;inset:0;z-index:9;background:#000e;display:grid;place-items:center}
.panels figure:target img{width:100vw;height:100vh;object-fit:contain;border-radius:0}
.panels figure:target figcaption{position:fixed;bottom:10px;color:#fff;background:#000a;padding:2px 12px;
  border-radius:5px}
.panels figure:target .close{display:block;position:fixed;inset:0;cursor:zoom-out}
pre{overflow-x:auto;background:var(--page);border:1px solid var(--line);border-radius:6px;padding:12px;
  font:.82rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media(max-width:640px){
  section{padding:14px 12px}
  .panels{grid-template-columns:1fr 1fr}
  .plot{height:210px;margin-left:40px}
  .cards{grid-template-columns:repeat(3,1fr);gap:8px}
  .cards dd{font-size:1.2rem}
  .cards div{padding:8px 10px}
  .scores{font-size:.8rem}
  .scores td,.scores th{padding:4px 3px}
  .scores thead th{font-size:.72rem}
  .scores th{max-width:112px;overflow:hidden;text-overflow:ellipsis}
  .heat tbody th{max-width:84px}
  .heat td{width:25px;min-width:25px}
  .heat td.corner{font-size:.62rem;padding:0 4px 6px;white-space:normal}
}
@media print{
  body{background:#fff;print-color-adjust:exact}
  section{border:0;padding:0}
  .wide,.tall{overflow:visible;max-height:none}
  nav{display:none}
}
"""
