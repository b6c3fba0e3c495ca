package difftest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// instructions are what cases are made of, one form of an instruction a line:
// its name, its encoding in the manual's notation, and words about it.
//
// Encoding: bytes (a first 66, f2 or f3 before 0f is a mandatory prefix), +r
// (a register in the last byte), +c (a condition in it), +i (one of eight x87
// registers), /r or /0 to /7 (ModRM), W (REX.W), then immediates: ib, iw, iz
// (16 or 32 bits), iv (up to 64), rel8, rel32, imoffs (an
// address).
//
// Operands: E (register or memory), M (memory) or R (register) in ModRM.rm,
// with the size of the memory operand in bytes, or v (by operand size: 2, 4, 8),
// y (4 or 8); a: it has to be aligned; n: it is not accessed. A word v, y or q
// of its own gives operand sizes (q: 2 or 8) to what has no such operand.
//
// Other words: lock (LOCK is legal with memory), rw (memory is read, then
// written), locked (as if LOCK was there), u: undefined status flags by their
// letters, or a rule of open.go; flavours of values: s, d (single, double
// precision), t (text), x (80-bit), bcd; x87 (uses that stack, its condition
// codes but C1 are undefined), cc (they are defined); good (its memory operand never
// faults); plain (no needless prefixes); nolock (no LOCK, which processors treat
// differently there); undefined (#UD always); and set-ups, see setup.go.
const instructions = `
test     84 /r            E1 u:a
test     85 /r            Ev u:a
test     a8 ib            u:a
test     a9 iz            v u:a
test     f6 /0 ib         E1 u:a
test     f7 /0 iz         Ev u:a
not      f6 /2            E1 lock
not      f7 /2            Ev lock
neg      f6 /3            E1 lock
neg      f7 /3            Ev lock
mul      f6 /4            E1 u:szap
mul      f7 /4            Ev u:szap
imul     f6 /5            E1 u:szap
imul     f7 /5            Ev u:szap
imul     0f af /r         Ev u:szap
imul     69 /r iz         Ev u:szap
imul     6b /r ib         Ev u:szap
div      f6 /6            E1 u:oszapc div
div      f7 /6            Ev u:oszapc div
idiv     f6 /7            E1 u:oszapc div
idiv     f7 /7            Ev u:oszapc div
inc      fe /0            E1 lock
inc      ff /0            Ev lock
dec      fe /1            E1 lock
dec      ff /1            Ev lock
mov      88 /r            E1
mov      89 /r            Ev
mov      8a /r            E1
mov      8b /r            Ev
mov      c6 /0 ib         E1
mov      c7 /0 iz         Ev
mov      b0 +r ib
mov      b8 +r iv         v
mov      a0 imoffs        s1 moffs
mov      a1 imoffs        v moffs
mov      a2 imoffs        s1 moffs
mov      a3 imoffs        v moffs
movzx    0f b6 /r         E1 v
movzx    0f b7 /r         E2 v
movsx    0f be /r         E1 v
movsx    0f bf /r         E2 v
movsxd   63 /r            E4 y
movnti   0f c3 /r         My plain
lea      8d /r            Mvn
xchg     86 /r            E1 locked lock
xchg     87 /r            Ev locked lock
xchg     90 +r            v
xadd     0f c0 /r         E1 lock
xadd     0f c1 /r         Ev lock
cmpxchg  0f b0 /r         E1 lock cmpxchg
cmpxchg  0f b1 /r         Ev lock cmpxchg
cmpxchg8b 0f c7 /1        M8 lock cmpxchg8b plain
cmpxchg16b 0f c7 /1 W     M16a lock cmpxchg8b plain
bswap    0f c8 +r         y
push     50 +r            q push
push     ff /6            Eq push
push     68 iz            q push
push     6a ib            q push
pop      58 +r            q pop
pop      8f /0            Eq pop
enter    c8 iw ib         enter good
leave    c9               leave
pushf    9c               q push
popf     9d               q popf
lahf     9f
sahf     9e
cbw      98               v
cwd      99               v
cmc      f5
clc      f8
stc      f9
cld      fc
std      fd
xlat     d7               xlat
nop      0f 1f /0         Evn nolock
nop      0f 18 /0         M1n plain nolock
pause    f3 90
rol      c0 /0 ib         E1 rw u:rot
rol      c1 /0 ib         Ev rw u:rot
rol      d0 /0            E1 rw u:rot
rol      d1 /0            Ev rw u:rot
rol      d2 /0            E1 rw u:rot cl
rol      d3 /0            Ev rw u:rot cl
ror      c0 /1 ib         E1 rw u:rot
ror      c1 /1 ib         Ev rw u:rot
ror      d0 /1            E1 rw u:rot
ror      d1 /1            Ev rw u:rot
ror      d2 /1            E1 rw u:rot cl
ror      d3 /1            Ev rw u:rot cl
rcl      c0 /2 ib         E1 rw u:rot
rcl      c1 /2 ib         Ev rw u:rot
rcl      d0 /2            E1 rw u:rot
rcl      d1 /2            Ev rw u:rot
rcl      d2 /2            E1 rw u:rot cl
rcl      d3 /2            Ev rw u:rot cl
rcr      c0 /3 ib         E1 rw u:rot
rcr      c1 /3 ib         Ev rw u:rot
rcr      d0 /3            E1 rw u:rot
rcr      d1 /3            Ev rw u:rot
rcr      d2 /3            E1 rw u:rot cl
rcr      d3 /3            Ev rw u:rot cl
shl      c0 /4 ib         E1 rw u:shift
shl      c1 /4 ib         Ev rw u:shift
shl      d0 /4            E1 rw u:shift
shl      d1 /4            Ev rw u:shift
shl      d2 /4            E1 rw u:shift cl
shl      d3 /4            Ev rw u:shift cl
shr      c0 /5 ib         E1 rw u:shift
shr      c1 /5 ib         Ev rw u:shift
shr      d0 /5            E1 rw u:shift
shr      d1 /5            Ev rw u:shift
shr      d2 /5            E1 rw u:shift cl
shr      d3 /5            Ev rw u:shift cl
sar      c0 /7 ib         E1 rw u:sar
sar      c1 /7 ib         Ev rw u:sar
sar      d0 /7            E1 rw u:sar
sar      d1 /7            Ev rw u:sar
sar      d2 /7            E1 rw u:sar cl
sar      d3 /7            Ev rw u:sar cl
shld     0f a4 /r ib      Ev rw u:double
shld     0f a5 /r         Ev rw u:double cl
shrd     0f ac /r ib      Ev rw u:double
shrd     0f ad /r         Ev rw u:double cl
bt       0f a3 /r         Ev u:osap bits
bt       0f ba /4 ib      Ev u:osap
bts      0f ab /r         Ev u:osap bits lock
bts      0f ba /5 ib      Ev u:osap lock
btr      0f b3 /r         Ev u:osap bits lock
btr      0f ba /6 ib      Ev u:osap lock
btc      0f bb /r         Ev u:osap bits lock
btc      0f ba /7 ib      Ev u:osap lock
bsf      0f bc /r         Ev u:osapc scan plain
bsr      0f bd /r         Ev u:osapc scan plain
popcnt   f3 0f b8 /r      Ev
crc32    f2 0f 38 f0 /r   E1 y
crc32    f2 0f 38 f1 /r   Ev
setcc    0f 90 +c /r      E1
cmovcc   0f 40 +c /r      Ev
jcc      70 +c rel8       branch
jcc      0f 80 +c rel32   branch
loopne   e0 rel8          branch loop
loope    e1 rel8          branch loop
loop     e2 rel8          branch loop
jrcxz    e3 rel8          branch loop
jmp      eb rel8          branch
jmp      e9 rel32         branch
jmp      ff /4            E8 near branch plain
call     e8 rel32         branch push plain
call     ff /2            E8 near branch push plain
ret      c3               branch ret plain
ret      c2 iw            branch ret plain
movs     a4               string s1
movs     a5               string v
cmps     a6               string s1
cmps     a7               string v
stos     aa               string s1
stos     ab               string v
lods     ac               string s1
lods     ad               string v
scas     ae               string s1
scas     af               string v
int3     cc
ud2      0f 0b            plain undefined
ud1      0f b9 /r         E4n plain undefined
rdfsbase f3 0f ae /0      R y nolock
rdgsbase f3 0f ae /1      R y nolock
wrfsbase f3 0f ae /2      R y base nolock
wrgsbase f3 0f ae /3      R y base nolock
sti      fb               nolock
in       e4 ib            nolock
in       ed               v nolock
out      e6 ib            nolock
out      ef               v nolock
movcr    0f 20 /0         R plain nolock
movcr    0f 22 /4         R plain nolock
movdr    0f 21 /7         R plain nolock
movdr    0f 23 /7         R plain nolock
lgdt     0f 01 /2         M10 good plain nolock
lmsw     0f 01 /6         E2 good plain nolock
invlpg   0f 01 /7         M1 good plain nolock
lldt     0f 00 /2         E2 good plain nolock
ltr      0f 00 /3         E2 good plain nolock
wbinvd   0f 09            plain nolock
swapgs   0f 01 f8         plain nolock

lfence   0f ae e8         plain nolock
mfence   0f ae f0         plain nolock
sfence   0f ae f8         plain nolock
clflush  0f ae /7         M1 plain nolock
ldmxcsr  0f ae /2         M4 ldmxcsr plain nolock
stmxcsr  0f ae /3         M4 plain nolock
fxsave   0f ae /0         M512a y good fxsave plain nolock
fxrstor  0f ae /1         M512a y good fxrstor plain nolock

movups   0f 10 /r         E16
movups   0f 11 /r         E16
movupd   66 0f 10 /r      E16
movupd   66 0f 11 /r      E16
movss    f3 0f 10 /r      E4 s
movss    f3 0f 11 /r      E4 s
movsd    f2 0f 10 /r      E8 d
movsd    f2 0f 11 /r      E8 d
movlps   0f 12 /r         E8
movlps   0f 13 /r         M8
movlpd   66 0f 12 /r      M8
movlpd   66 0f 13 /r      M8
movhps   0f 16 /r         E8
movhps   0f 17 /r         M8
movhpd   66 0f 16 /r      M8
movhpd   66 0f 17 /r      M8
movsldup f3 0f 12 /r      E16a
movshdup f3 0f 16 /r      E16a
movddup  f2 0f 12 /r      E8
unpcklps 0f 14 /r         E16a
unpcklpd 66 0f 14 /r      E16a
unpckhps 0f 15 /r         E16a
unpckhpd 66 0f 15 /r      E16a
movaps   0f 28 /r         E16a
movaps   0f 29 /r         E16a
movapd   66 0f 28 /r      E16a
movapd   66 0f 29 /r      E16a
cvtpi2ps 0f 2a /r         E8 mmx
cvtpi2pd 66 0f 2a /r      E8 mmx
cvtsi2ss f3 0f 2a /r      Ey
cvtsi2sd f2 0f 2a /r      Ey
movntps  0f 2b /r         M16a
movntpd  66 0f 2b /r      M16a
cvttps2pi 0f 2c /r        E8 s mmx
cvttpd2pi 66 0f 2c /r     E16a d mmx
cvttss2si f3 0f 2c /r     E4 s y
cvttsd2si f2 0f 2c /r     E8 d y
cvtps2pi 0f 2d /r         E8 s mmx
cvtpd2pi 66 0f 2d /r      E16a d mmx
cvtss2si f3 0f 2d /r      E4 s y
cvtsd2si f2 0f 2d /r      E8 d y
ucomiss  0f 2e /r         E4 s
ucomisd  66 0f 2e /r      E8 d
comiss   0f 2f /r         E4 s
comisd   66 0f 2f /r      E8 d
movmskps 0f 50 /r         R s
movmskpd 66 0f 50 /r      R d
rsqrtps  0f 52 /r         E16a s estimate
rsqrtss  f3 0f 52 /r      E4 s estimate
rcpps    0f 53 /r         E16a s estimate
rcpss    f3 0f 53 /r      E4 s estimate
andps    0f 54 /r         E16a
andpd    66 0f 54 /r      E16a
andnps   0f 55 /r         E16a
andnpd   66 0f 55 /r      E16a
orps     0f 56 /r         E16a
orpd     66 0f 56 /r      E16a
xorps    0f 57 /r         E16a
xorpd    66 0f 57 /r      E16a
cvtps2pd 0f 5a /r         E8 s
cvtpd2ps 66 0f 5a /r      E16a d
cvtss2sd f3 0f 5a /r      E4 s
cvtsd2ss f2 0f 5a /r      E8 d
cvtdq2ps 0f 5b /r         E16a
cvtps2dq 66 0f 5b /r      E16a s
cvttps2dq f3 0f 5b /r     E16a s
cmpps    0f c2 /r ib      E16a s compare
cmppd    66 0f c2 /r ib   E16a d compare
cmpss    f3 0f c2 /r ib   E4 s compare
cmpsd    f2 0f c2 /r ib   E8 d compare
shufps   0f c6 /r ib      E16a
shufpd   66 0f c6 /r ib   E16a
haddpd   66 0f 7c /r      E16a d
haddps   f2 0f 7c /r      E16a s
hsubpd   66 0f 7d /r      E16a d
hsubps   f2 0f 7d /r      E16a s
addsubpd 66 0f d0 /r      E16a d
addsubps f2 0f d0 /r      E16a s
cvttpd2dq 66 0f e6 /r     E16a d
cvtdq2pd f3 0f e6 /r      E8
cvtpd2dq f2 0f e6 /r      E16a d
punpcklqdq 66 0f 6c /r    E16a
punpckhqdq 66 0f 6d /r    E16a
movd     0f 6e /r         Ey mmx
movd     66 0f 6e /r      Ey
movd     0f 7e /r         Ey mmx
movd     66 0f 7e /r      Ey
movq     0f 6f /r         E8 mmx
movq     0f 7f /r         E8 mmx
movdqa   66 0f 6f /r      E16a
movdqa   66 0f 7f /r      E16a
movdqu   f3 0f 6f /r      E16
movdqu   f3 0f 7f /r      E16
movq     f3 0f 7e /r      E8
movq     66 0f d6 /r      E8
pshufw   0f 70 /r ib      E8 mmx
pshufd   66 0f 70 /r ib   E16a
pshufhw  f3 0f 70 /r ib   E16a
pshuflw  f2 0f 70 /r ib   E16a
psrldq   66 0f 73 /3 ib   R
pslldq   66 0f 73 /7 ib   R
emms     0f 77            mmx plain
pinsrw   0f c4 /r ib      E2 mmx
pinsrw   66 0f c4 /r ib   E2
pextrw   0f c5 /r ib      R mmx
pextrw   66 0f c5 /r ib   R
movq2dq  f3 0f d6 /r      R mmx
movdq2q  f2 0f d6 /r      R mmx
pmovmskb 0f d7 /r         R mmx
pmovmskb 66 0f d7 /r      R
movntq   0f e7 /r         M8 mmx
movntdq  66 0f e7 /r      M16a
lddqu    f2 0f f0 /r      M16
maskmovq 0f f7 /r         R mmx maskmov
maskmovdqu 66 0f f7 /r    R maskmov
palignr  0f 3a 0f /r ib   E8 mmx
palignr  66 0f 3a 0f /r ib E16a
pblendvb 66 0f 38 10 /r   E16a
blendvps 66 0f 38 14 /r   E16a
blendvpd 66 0f 38 15 /r   E16a
ptest    66 0f 38 17 /r   E16a
pmovsxbw 66 0f 38 20 /r   E8
pmovsxbd 66 0f 38 21 /r   E4
pmovsxbq 66 0f 38 22 /r   E2
pmovsxwd 66 0f 38 23 /r   E8
pmovsxwq 66 0f 38 24 /r   E4
pmovsxdq 66 0f 38 25 /r   E8
pmuldq   66 0f 38 28 /r   E16a
pcmpeqq  66 0f 38 29 /r   E16a t
movntdqa 66 0f 38 2a /r   M16a
packusdw 66 0f 38 2b /r   E16a
pmovzxbw 66 0f 38 30 /r   E8
pmovzxbd 66 0f 38 31 /r   E4
pmovzxbq 66 0f 38 32 /r   E2
pmovzxwd 66 0f 38 33 /r   E8
pmovzxwq 66 0f 38 34 /r   E4
pmovzxdq 66 0f 38 35 /r   E8
pcmpgtq  66 0f 38 37 /r   E16a
pminsb   66 0f 38 38 /r   E16a
pminsd   66 0f 38 39 /r   E16a
pminuw   66 0f 38 3a /r   E16a
pminud   66 0f 38 3b /r   E16a
pmaxsb   66 0f 38 3c /r   E16a
pmaxsd   66 0f 38 3d /r   E16a
pmaxuw   66 0f 38 3e /r   E16a
pmaxud   66 0f 38 3f /r   E16a
pmulld   66 0f 38 40 /r   E16a
phminposuw 66 0f 38 41 /r E16a
roundps  66 0f 3a 08 /r ib E16a s round
roundpd  66 0f 3a 09 /r ib E16a d round
roundss  66 0f 3a 0a /r ib E4 s round
roundsd  66 0f 3a 0b /r ib E8 d round
blendps  66 0f 3a 0c /r ib E16a
blendpd  66 0f 3a 0d /r ib E16a
pblendw  66 0f 3a 0e /r ib E16a
pextrb   66 0f 3a 14 /r ib E1
pextrw   66 0f 3a 15 /r ib E2
pextrd   66 0f 3a 16 /r ib Ey
extractps 66 0f 3a 17 /r ib E4
pinsrb   66 0f 3a 20 /r ib E1
insertps 66 0f 3a 21 /r ib E4 s
pinsrd   66 0f 3a 22 /r ib Ey
dpps     66 0f 3a 40 /r ib E16a s
dppd     66 0f 3a 41 /r ib E16a d
mpsadbw  66 0f 3a 42 /r ib E16a compare
pcmpestrm 66 0f 3a 60 /r ib E16 t y strings lengths
pcmpestri 66 0f 3a 61 /r ib E16 t y strings lengths
pcmpistrm 66 0f 3a 62 /r ib E16 t strings
pcmpistri 66 0f 3a 63 /r ib E16 t strings

fadd     d8 /0            M4 x87 s
fmul     d8 /1            M4 x87 s
fcom     d8 /2            M4 x87 s cc
fcomp    d8 /3            M4 x87 s cc
fsub     d8 /4            M4 x87 s
fsubr    d8 /5            M4 x87 s
fdiv     d8 /6            M4 x87 s
fdivr    d8 /7            M4 x87 s
fadd     d8 c0 +i         x87
fmul     d8 c8 +i         x87
fcom     d8 d0 +i         x87 cc
fcomp    d8 d8 +i         x87 cc
fsub     d8 e0 +i         x87
fsubr    d8 e8 +i         x87
fdiv     d8 f0 +i         x87
fdivr    d8 f8 +i         x87
fld      d9 /0            M4 x87 s
fst      d9 /2            M4 x87 s
fstp     d9 /3            M4 x87 s
fldenv   d9 /4            M28 x87 good fldenv cc
fldcw    d9 /5            M2 x87 fldcw
fnstenv  d9 /6            M28 x87 good fnstenv
fnstcw   d9 /7            M2 x87
fld      d9 c0 +i         x87
fxch     d9 c8 +i         x87
fnop     d9 d0            x87
fchs     d9 e0            x87
fabs     d9 e1            x87
ftst     d9 e4            x87 cc
fxam     d9 e5            x87 cc
fld1     d9 e8            x87
fldl2t   d9 e9            x87
fldl2e   d9 ea            x87
fldpi    d9 eb            x87
fldlg2   d9 ec            x87
fldln2   d9 ed            x87
fldz     d9 ee            x87
f2xm1    d9 f0            x87 transcendental
fyl2x    d9 f1            x87 transcendental
fptan    d9 f2            x87 transcendental
fpatan   d9 f3            x87 transcendental
fxtract  d9 f4            x87
fprem1   d9 f5            x87 prem
fdecstp  d9 f6            x87
fincstp  d9 f7            x87
fprem    d9 f8            x87 prem
fyl2xp1  d9 f9            x87 transcendental
fsqrt    d9 fa            x87
fsincos  d9 fb            x87 transcendental
frndint  d9 fc            x87
fscale   d9 fd            x87 scale
fsin     d9 fe            x87 transcendental
fcos     d9 ff            x87 transcendental
fiadd    da /0            M4 x87
fimul    da /1            M4 x87
ficom    da /2            M4 x87 cc
ficomp   da /3            M4 x87 cc
fisub    da /4            M4 x87
fisubr   da /5            M4 x87
fidiv    da /6            M4 x87
fidivr   da /7            M4 x87
fcmovb   da c0 +i         x87
fcmove   da c8 +i         x87
fcmovbe  da d0 +i         x87
fcmovu   da d8 +i         x87
fucompp  da e9            x87 cc
fild     db /0            M4 x87
fisttp   db /1            M4 x87 integers
fist     db /2            M4 x87 integers
fistp    db /3            M4 x87 integers
fld      db /5            M10 x87 x
fstp     db /7            M10 x87
fcmovnb  db c0 +i         x87
fcmovne  db c8 +i         x87
fcmovnbe db d0 +i         x87
fcmovnu  db d8 +i         x87
fnclex   db e2            x87
fninit   db e3            x87 cc
fucomi   db e8 +i         x87
fcomi    db f0 +i         x87
fadd     dc /0            M8 x87 d
fmul     dc /1            M8 x87 d
fcom     dc /2            M8 x87 d cc
fcomp    dc /3            M8 x87 d cc
fsub     dc /4            M8 x87 d
fsubr    dc /5            M8 x87 d
fdiv     dc /6            M8 x87 d
fdivr    dc /7            M8 x87 d
fadd     dc c0 +i         x87
fmul     dc c8 +i         x87
fsubr    dc e0 +i         x87
fsub     dc e8 +i         x87
fdivr    dc f0 +i         x87
fdiv     dc f8 +i         x87
fld      dd /0            M8 x87 d
fisttp   dd /1            M8 x87 integers
fst      dd /2            M8 x87 d
fstp     dd /3            M8 x87 d
frstor   dd /4            M108 x87 good fldenv cc
fnsave   dd /6            M108 x87 good fnstenv cc
fnstsw   dd /7            M2 x87
ffree    dd c0 +i         x87
fst      dd d0 +i         x87
fstp     dd d8 +i         x87
fucom    dd e0 +i         x87 cc
fucomp   dd e8 +i         x87 cc
fiadd    de /0            M2 x87
fimul    de /1            M2 x87
ficom    de /2            M2 x87 cc
ficomp   de /3            M2 x87 cc
fisub    de /4            M2 x87
fisubr   de /5            M2 x87
fidiv    de /6            M2 x87
fidivr   de /7            M2 x87
faddp    de c0 +i         x87
fmulp    de c8 +i         x87
fcompp   de d9            x87 cc
fsubrp   de e0 +i         x87
fsubp    de e8 +i         x87
fdivrp   de f0 +i         x87
fdivp    de f8 +i         x87
fild     df /0            M2 x87
fisttp   df /1            M2 x87 integers
fist     df /2            M2 x87 integers
fistp    df /3            M2 x87 integers
fbld     df /4            M10 x87 bcd
fild     df /5            M8 x87
fbstp    df /6            M10 x87 integers
fistp    df /7            M8 x87 integers
fnstsw   df e0            x87
fucomip  df e8 +i         x87
fcomip   df f0 +i         x87
fwait    9b               x87
`

// families are groups of instructions whose encodings count up.
var families = []struct {
	form  string // with %s for the name, or %02x for the encoding, in this order
	first int
	step  int
	names string
}{
	// The eight of the first rows of the one-byte opcode map.
	{"%s %02x /r E1 lock", 0x00, 8, "add or adc sbb and sub xor"},
	{"%s %02x /r Ev lock", 0x01, 8, "add or adc sbb and sub xor"},
	{"%s %02x /r E1", 0x02, 8, "add or adc sbb and sub xor"},
	{"%s %02x /r Ev", 0x03, 8, "add or adc sbb and sub xor"},
	{"%s %02x ib", 0x04, 8, "add or adc sbb and sub xor cmp"},
	{"%s %02x iz v", 0x05, 8, "add or adc sbb and sub xor cmp"},
	{"%s 80 /%x ib E1 lock", 0, 1, "add or adc sbb and sub xor"},
	{"%s 81 /%x iz Ev lock", 0, 1, "add or adc sbb and sub xor"},
	{"%s 83 /%x ib Ev lock", 0, 1, "add or adc sbb and sub xor"},
	{"%s %02x /r E1", 0x38, 2, "cmp cmp"},
	{"%s %02x /r Ev", 0x39, 2, "cmp cmp"},
	{"%s 80 /%x ib E1", 7, 1, "cmp"},
	{"%s 81 /%x iz Ev", 7, 1, "cmp"},
	{"%s 83 /%x ib Ev", 7, 1, "cmp"},
	// SSE arithmetic in its four types.
	{"%sps 0f %02x /r E16a s", 0x58, 1, "add mul - - sub min div max"},
	{"%spd 66 0f %02x /r E16a d", 0x58, 1, "add mul - - sub min div max"},
	{"%sss f3 0f %02x /r E4 s", 0x58, 1, "add mul - - sub min div max"},
	{"%ssd f2 0f %02x /r E8 d", 0x58, 1, "add mul - - sub min div max"},
	{"%sps 0f %02x /r E16a s", 0x51, 1, "sqrt"},
	{"%spd 66 0f %02x /r E16a d", 0x51, 1, "sqrt"},
	{"%sss f3 0f %02x /r E4 s", 0x51, 1, "sqrt"},
	{"%ssd f2 0f %02x /r E8 d", 0x51, 1, "sqrt"},
	// MMX and the same on XMM registers.
	{"p%s 0f %02x /r E4 mmx", 0x60, 1, "unpcklbw unpcklwd unpckldq"},
	{"p%s 66 0f %02x /r E16a", 0x60, 1, "unpcklbw unpcklwd unpckldq"},
	{"p%s 0f %02x /r E8 mmx", 0x63, 1, mmx63},
	{"p%s 66 0f %02x /r E16a", 0x63, 1, mmx63},
	{"p%s 0f %02x /r E8 mmx t", 0x74, 1, "cmpeqb cmpeqw cmpeqd"},
	{"p%s 66 0f %02x /r E16a t", 0x74, 1, "cmpeqb cmpeqw cmpeqd"},
	{"p%s 0f 71 /%x ib R mmx", 2, 2, "srlw sraw sllw"},
	{"p%s 66 0f 71 /%x ib R", 2, 2, "srlw sraw sllw"},
	{"p%s 0f 72 /%x ib R mmx", 2, 2, "srld srad slld"},
	{"p%s 66 0f 72 /%x ib R", 2, 2, "srld srad slld"},
	{"p%s 0f 73 /%x ib R mmx", 2, 4, "srlq sllq"},
	{"p%s 66 0f 73 /%x ib R", 2, 4, "srlq sllq"},
	{"p%s 0f %02x /r E8 mmx", 0xd1, 1, mmxd1},
	{"p%s 66 0f %02x /r E16a", 0xd1, 1, mmxd1},
	{"p%s 0f %02x /r E8 mmx", 0x3800, 1, ssse3},
	{"p%s 66 0f %02x /r E16a", 0x3800, 1, ssse3},
	{"p%s 0f %02x /r E8 mmx", 0x381c, 1, "absb absw absd"},
	{"p%s 66 0f %02x /r E16a", 0x381c, 1, "absb absw absd"},
	// What CPL 3 may not do, and what 64-bit mode does not have.
	{"%s %02x nolock", 0xf4, 6, "hlt cli"},
	{"%s 0f %02x plain nolock", 0x06, 2, "clts invd"},
	{"%s 0f %02x plain nolock", 0x30, 2, "wrmsr rdmsr"},
	{"bad-%s %02x plain undefined", 0x06, 1, "06 07"},
	{"bad-%s %02x plain undefined", 0x16, 1, "16 17"},
	{"bad-%s %02x plain undefined", 0x1e, 1, "1e 1f"},
	{"bad-%s %02x plain undefined", 0x27, 8, "27 2f 37 3f"},
	{"bad-%s %02x plain undefined", 0x60, 1, "60 61"},
	{"bad-%s %02x plain undefined", 0xce, 1, "ce"},
	{"bad-%s %02x plain undefined", 0xd4, 1, "d4 d5 d6"},
	{"bad-%s %02x plain undefined", 0xea, 1, "ea"},
	{"bad-%s %02x plain undefined", 0x9a, 1, "9a"},
}

const (
	mmx63 = "acksswb cmpgtb cmpgtw cmpgtd ackuswb unpckhbw unpckhwd unpckhdq ackssdw"
	mmxd1 = "srlw srld srlq addq mullw - - subusb subusw minub and addusb addusw maxub andn " +
		"avgb sraw srad avgw mulhuw mulhw - - subsb subsw minsw or addsb addsw maxsw xor " +
		"- sllw slld sllq muludq maddwd sadbw - subb subw subd subq addb addw addd"
	ssse3 = "shufb haddw haddd haddsw maddubsw hsubw hsubd hsubsw signb signw signd mulhrsw"
)

// sizes are the operand sizes that a form has.
type sizes uint8

const (
	sizeNone sizes = iota // one size, whatever it is
	sizeV                 // 16, 32, 64 bits
	sizeY                 // 32, 64
	sizeQ                 // 16, 64 (the stack's)
)

// form is one form of an instruction.
type form struct {
	text      string // the line of the table
	name      string
	mandatory byte // prefix
	opcode    []byte
	inOpcode  byte // 'r', 'c' or 'i': what is in the opcode's last bits
	modrm     bool
	digit     int // of ModRM.reg, -1 for a register
	imm       []string
	sizes     sizes
	wide      bool // REX.W always
	rm        byte // 'E', 'M', 'R'; 0 if none
	memory    int  // size of the operand in memory, 0: the operand's size
	aligned   bool
	untouched bool // the memory is not accessed
	flavour   byte // 'i', 's', 'd', 't', 'x', 'b'
	undefined string
	words     []string
}

func (f *form) is(word string) bool { return slices.Contains(f.words, word) }

// forms is the whole table.
var forms = parseTable()

func parseTable() []*form {
	var list []*form
	for line := range strings.Lines(instructions) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, parseForm(line))
		}
	}
	for _, f := range families {
		for i, name := range strings.Fields(f.names) {
			if name == "-" {
				continue
			}
			text := f.form
			// A two-byte number stands for two bytes of the opcode.
			n := f.first + i*f.step
			if n > 0xff {
				text = strings.Replace(text, "%02x", fmt.Sprintf("%02x %%02x", n>>8), 1)
				n &= 0xff
			}
			text = fmt.Sprintf(text, name, n)
			if name == "and" || name == "or" || name == "xor" {
				if !strings.HasPrefix(text, "p") {
					text += " u:a"
				}
			}
			list = append(list, parseForm(text))
		}
	}
	return list
}

// parseForm reads one line. A mistake in the table is a mistake in this
// program, so it panics.
func parseForm(text string) *form {
	fields := strings.Fields(text)
	f := &form{text: strings.Join(fields, " "), name: fields[0], digit: -1, flavour: 'i'}
	fields = fields[1:]
	if len(fields) > 1 && (fields[0] == "66" || fields[0] == "f2" || fields[0] == "f3") && (fields[1] == "0f" || fields[1] == "90") {
		b, _ := strconv.ParseUint(fields[0], 16, 8)
		f.mandatory, fields = byte(b), fields[1:]
	}
	size := func(s string) {
		switch s {
		case "v":
			f.sizes = sizeV
		case "y":
			f.sizes = sizeY
		case "q":
			f.sizes = sizeQ
		}
	}
	encoding := true
	for _, w := range fields {
		if b, err := strconv.ParseUint(w, 16, 8); encoding && err == nil && len(w) == 2 {
			f.opcode = append(f.opcode, byte(b))
			continue
		}
		encoding = false
		switch {
		case w == "+r", w == "+c", w == "+i":
			f.inOpcode = w[1]
			encoding = false
		case w == "/r":
			f.modrm = true
		case w[0] == '/':
			f.modrm, f.digit = true, int(w[1]-'0')
		case w == "W":
			f.wide = true
		case w == "ib", w == "iw", w == "iz", w == "iv", w == "rel8", w == "rel32", w == "imoffs":
			f.imm = append(f.imm, w)
		case w == "v", w == "y", w == "q":
			size(w)
		case w == "s1":
			f.memory = 1
		case w == "s", w == "d", w == "t", w == "x":
			f.flavour = w[0]
		case w == "bcd":
			f.flavour = 'b'
		case strings.HasPrefix(w, "u:"):
			f.undefined = w[2:]
		case w[0] == 'E' || w[0] == 'M' || w[0] == 'R':
			f.rm = w[0]
			w = w[1:]
			for strings.HasSuffix(w, "a") || strings.HasSuffix(w, "n") {
				f.aligned = f.aligned || w[len(w)-1] == 'a'
				f.untouched = f.untouched || w[len(w)-1] == 'n'
				w = w[:len(w)-1]
			}
			if n, err := strconv.Atoi(w); err == nil {
				f.memory = n
			} else {
				size(w)
			}
		default:
			f.words = append(f.words, w)
		}
	}
	if len(f.opcode) == 0 || f.modrm != (f.rm != 0) {
		panic("difftest: table: " + text)
	}
	return f
}
