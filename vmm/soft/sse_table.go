package soft

// simdOps are the instructions of MMX and of SSE to SSE4.2, by map (0F, 0F 38 and
// 0F 3A), mandatory prefix and opcode (SDM volume 2, appendix A, tables
// and A-5). What an init function and not an initializer fills can be looked at
// by what a handler calls.
var simdOps [3][4][256]simdOp

func init() {
	none, p66, pF3, pF2 := &simdOps[0][simdNone], &simdOps[0][simd66], &simdOps[0][simdF3], &simdOps[0][simdF2]
	none38, p6638 := &simdOps[1][simdNone], &simdOps[1][simd66]
	none3A, p663A := &simdOps[2][simdNone], &simdOps[2][simd66]

	*none = [256]simdOp{
		0x10: {fn: opMovups},
		0x11: {fn: opMovupsStore},
		0x12: {fn: opMovlps}, // and MOVHLPS
		0x13: {fn: opMovlpsStore, memOnly: true},
		0x14: {fn: opPunpckldq}, // UNPCKLPS
		0x15: {fn: opPunpckhdq}, // UNPCKHPS
		0x16: {fn: opMovhps},    // and MOVLHPS
		0x17: {fn: opMovhpsStore, memOnly: true},
		0x28: {fn: opMovaps},
		0x29: {fn: opMovapsStore},
		0x2a: {fn: opCvtpi2ps},
		0x2b: {fn: opMovapsStore, memOnly: true}, // MOVNTPS
		0x2c: {fn: opCvttps2pi},
		0x2d: {fn: opCvtps2pi},
		0x2e: {fn: opUcomiss},
		0x2f: {fn: opComiss},
		0x50: {fn: opMovmskps, regOnly: true},
		0x51: {fn: packed32(squareRoot)},
		0x52: {fn: packedApproximation(rsqrt32)},
		0x53: {fn: packedApproximation(rcp32)},
		0x54: {fn: opPand},
		0x55: {fn: opPandn},
		0x56: {fn: opPor},
		0x57: {fn: opPxor},
		0x58: {fn: packed32(addition)},
		0x59: {fn: packed32(multiplication)},
		0x5a: {fn: opCvtps2pd},
		0x5b: {fn: opCvtdq2ps},
		0x5c: {fn: packed32(subtraction)},
		0x5d: {fn: packed32(minimum)},
		0x5e: {fn: packed32(division)},
		0x5f: {fn: packed32(maximum)},
		0x6e: {fn: opMovdMM, mmx: true},
		0x6f: {fn: opMovqMM, mmx: true},
		0x70: {fn: opPshufw, mmx: true, imm: true},
		0x71: {fn: mmxShiftImm(wordShifts), mmx: true, imm: true, regOnly: true},
		0x72: {fn: mmxShiftImm(doublewordShifts), mmx: true, imm: true, regOnly: true},
		0x73: {fn: mmxShiftImm(quadwordShifts), mmx: true, imm: true, regOnly: true},
		0x77: {fn: opEmms, mmx: true},
		0x7e: {fn: opMovdMMStore, mmx: true},
		0x7f: {fn: opMovqMMStore, mmx: true},
		0xc2: {fn: opCmpps, imm: true},
		0xc4: {fn: opPinsrwMM, mmx: true, imm: true},
		0xc5: {fn: opPextrwMM, mmx: true, imm: true, regOnly: true},
		0xc6: {fn: opShufps, imm: true},
		0xd7: {fn: opPmovmskbMM, mmx: true, regOnly: true},
		0xe7: {fn: opMovqMMStore, mmx: true, memOnly: true}, // MOVNTQ
		0xf7: {fn: opMaskmovq, mmx: true, regOnly: true},
	}

	*p66 = [256]simdOp{
		0x10: {fn: opMovups},                     // MOVUPD
		0x11: {fn: opMovupsStore},                // MOVUPD
		0x12: {fn: opMovlps, memOnly: true},      // MOVLPD
		0x13: {fn: opMovlpsStore, memOnly: true}, // MOVLPD
		0x14: {fn: opPunpcklqdq},                 // UNPCKLPD
		0x15: {fn: opPunpckhqdq},                 // UNPCKHPD
		0x16: {fn: opMovhps, memOnly: true},      // MOVHPD
		0x17: {fn: opMovhpsStore, memOnly: true}, // MOVHPD
		0x28: {fn: opMovaps},                     // MOVAPD
		0x29: {fn: opMovapsStore},                // MOVAPD
		0x2a: {fn: opCvtpi2pd},
		0x2b: {fn: opMovapsStore, memOnly: true}, // MOVNTPD
		0x2c: {fn: opCvttpd2pi},
		0x2d: {fn: opCvtpd2pi},
		0x2e: {fn: opUcomisd},
		0x2f: {fn: opComisd},
		0x50: {fn: opMovmskpd, regOnly: true},
		0x51: {fn: packed64(squareRoot)},
		0x54: {fn: opPand},  // ANDPD
		0x55: {fn: opPandn}, // ANDNPD
		0x56: {fn: opPor},   // ORPD
		0x57: {fn: opPxor},  // XORPD
		0x58: {fn: packed64(addition)},
		0x59: {fn: packed64(multiplication)},
		0x5a: {fn: opCvtpd2ps},
		0x5b: {fn: opCvtps2dq},
		0x5c: {fn: packed64(subtraction)},
		0x5d: {fn: packed64(minimum)},
		0x5e: {fn: packed64(division)},
		0x5f: {fn: packed64(maximum)},
		0x60: {fn: opPunpcklbw},
		0x61: {fn: opPunpcklwd},
		0x62: {fn: opPunpckldq},
		0x68: {fn: opPunpckhbw},
		0x69: {fn: opPunpckhwd},
		0x6a: {fn: opPunpckhdq},
		0x6c: {fn: opPunpcklqdq},
		0x6d: {fn: opPunpckhqdq},
		0x6e: {fn: opMovd},
		0x6f: {fn: opMovaps}, // MOVDQA
		0x70: {fn: opPshufd, imm: true},
		0x71: {fn: xmmShiftImm(wordShifts), imm: true, regOnly: true},
		0x72: {fn: xmmShiftImm(doublewordShifts), imm: true, regOnly: true},
		0x73: {fn: opShift73, imm: true, regOnly: true},
		0x74: {fn: opPcmpeqb},
		0x75: {fn: opPcmpeqw},
		0x76: {fn: opPcmpeqd},
		0x7c: {fn: horizontal64(addition)},    // HADDPD
		0x7d: {fn: horizontal64(subtraction)}, // HSUBPD
		0x7e: {fn: opMovdStore},
		0x7f: {fn: opMovapsStore}, // MOVDQA
		0xc2: {fn: opCmppd, imm: true},
		0xc4: {fn: opPinsrw, imm: true},
		0xc5: {fn: opPextrw, imm: true, regOnly: true},
		0xc6: {fn: opShufpd, imm: true},
		0xd0: {fn: opAddsubpd},
		0xd4: {fn: opPaddq},
		0xd6: {fn: opMovqStore},
		0xd7: {fn: opPmovmskb, regOnly: true},
		0xda: {fn: opPminub},
		0xdb: {fn: opPand},
		0xdf: {fn: opPandn},
		0xe6: {fn: opCvttpd2dq},
		0xe7: {fn: opMovapsStore, memOnly: true}, // MOVNTDQ
		0xeb: {fn: opPor},
		0xef: {fn: opPxor},
		0xf7: {fn: opMaskmovdqu, regOnly: true},
		0xf8: {fn: opPsubb},
		0xfa: {fn: opPsubd},
		0xfb: {fn: opPsubq},
		0xfc: {fn: opPaddb},
		0xfd: {fn: opPaddw},
		0xfe: {fn: opPaddd},
	}

	*pF3 = [256]simdOp{
		0x10: {fn: opMovss},
		0x11: {fn: opMovssStore},
		0x12: {fn: opMovsldup},
		0x16: {fn: opMovshdup},
		0x2a: {fn: opCvtsi2ss},
		0x2c: {fn: opCvttss2si},
		0x2d: {fn: opCvtss2si},
		0x51: {fn: scalar32(squareRoot)},
		0x52: {fn: scalarApproximation(rsqrt32)},
		0x53: {fn: scalarApproximation(rcp32)},
		0x58: {fn: scalar32(addition)},
		0x59: {fn: scalar32(multiplication)},
		0x5a: {fn: opCvtss2sd},
		0x5b: {fn: opCvttps2dq},
		0x5c: {fn: scalar32(subtraction)},
		0x5d: {fn: scalar32(minimum)},
		0x5e: {fn: scalar32(division)},
		0x5f: {fn: scalar32(maximum)},
		0x6f: {fn: opMovups}, // MOVDQU
		0x70: {fn: opPshufhw, imm: true},
		0x7e: {fn: opMovq},
		0x7f: {fn: opMovupsStore}, // MOVDQU
		0xc2: {fn: opCmpss, imm: true},
		0xd6: {fn: opMovq2dq, regOnly: true},
		0xe6: {fn: opCvtdq2pd},
	}

	*pF2 = [256]simdOp{
		0x10: {fn: opMovsd},
		0x11: {fn: opMovsdStore},
		0x12: {fn: opMovddup},
		0x2a: {fn: opCvtsi2sd},
		0x2c: {fn: opCvttsd2si},
		0x2d: {fn: opCvtsd2si},
		0x51: {fn: scalar64(squareRoot)},
		0x58: {fn: scalar64(addition)},
		0x59: {fn: scalar64(multiplication)},
		0x5a: {fn: opCvtsd2ss},
		0x5c: {fn: scalar64(subtraction)},
		0x5d: {fn: scalar64(minimum)},
		0x5e: {fn: scalar64(division)},
		0x5f: {fn: scalar64(maximum)},
		0x70: {fn: opPshuflw, imm: true},
		0x7c: {fn: horizontal32(addition)},    // HADDPS
		0x7d: {fn: horizontal32(subtraction)}, // HSUBPS
		0xc2: {fn: opCmpsd, imm: true},
		0xd0: {fn: opAddsubps},
		0xd6: {fn: opMovdq2q, regOnly: true},
		0xe6: {fn: opCvtpd2dq},
		0xf0: {fn: opMovups, memOnly: true}, // LDDQU
	}

	*none38 = [256]simdOp{
		0x00: {fn: opPshufbMM, mmx: true},
	}

	*p6638 = [256]simdOp{
		0x00: {fn: opPshufb},
		0x10: {fn: opPblendvb},
		0x14: {fn: opBlendvps},
		0x15: {fn: opBlendvpd},
		0x17: {fn: opPtest},
		0x20: {fn: extendLanes(8, widen[int8, int16])}, // PMOVSX
		0x21: {fn: extendLanes(4, widen[int8, int32])},
		0x22: {fn: extendLanes(2, widen[int8, int64])},
		0x23: {fn: extendLanes(8, widen[int16, int32])},
		0x24: {fn: extendLanes(4, widen[int16, int64])},
		0x25: {fn: extendLanes(8, widen[int32, int64])},
		0x2a: {fn: opMovaps, memOnly: true},              // MOVNTDQA
		0x30: {fn: extendLanes(8, widen[uint8, uint16])}, // PMOVZX
		0x31: {fn: extendLanes(4, widen[uint8, uint32])},
		0x32: {fn: extendLanes(2, widen[uint8, uint64])},
		0x33: {fn: extendLanes(8, widen[uint16, uint32])},
		0x34: {fn: extendLanes(4, widen[uint16, uint64])},
		0x35: {fn: extendLanes(8, widen[uint32, uint64])},
		0x41: {fn: opPhminposuw},
	}

	*none3A = [256]simdOp{
		0x0f: {fn: opPalignrMM, mmx: true},
	}

	*p663A = [256]simdOp{
		0x08: {fn: opRoundps},
		0x09: {fn: opRoundpd},
		0x0a: {fn: opRoundss},
		0x0b: {fn: opRoundsd},
		0x0c: {fn: opBlendps},
		0x0d: {fn: opBlendpd},
		0x0e: {fn: opPblendw},
		0x0f: {fn: opPalignr},
		0x14: {fn: opPextrb},
		0x15: {fn: opPextrwStore},
		0x16: {fn: opPextrd}, // and PEXTRQ
		0x17: {fn: opExtractps},
		0x20: {fn: opPinsrb},
		0x21: {fn: opInsertps},
		0x22: {fn: opPinsrd}, // and PINSRQ
		0x40: {fn: opDpps},
		0x41: {fn: opDppd},
		0x42: {fn: opMpsadbw},
		0x60: {fn: opPcmpestrm},
		0x61: {fn: opPcmpestri},
		0x62: {fn: opPcmpistrm},
		0x63: {fn: opPcmpistri},
	}

	// The rest comes with and without 66, for XMM and MMX registers, and is the
	// same for each 64 bits, or for two of them. A handler that is there already
	// is one that is often needed, and faster.
	fill := func(none, p66 *[256]simdOp, opcode uint8, mmx, xmm handler) {
		none[opcode] = simdOp{fn: mmx, mmx: true}
		if p66[opcode].fn == nil {
			p66[opcode] = simdOp{fn: xmm}
		}
	}
	for opcode, f := range lanes0F {
		fill(none, p66, opcode, mmxLanes(f), xmmLanes(f))
	}
	for opcode, f := range lanes0F38 {
		fill(none38, p6638, opcode, mmxLanes(f), xmmLanes(f))
	}
	for opcode, f := range lanesSSE41 {
		p6638[opcode] = simdOp{fn: xmmLanes(f)}
	}
	for opcode, f := range pairs0F {
		fill(none, p66, opcode, mmxLanes(f), xmmPairs(f))
	}
	for opcode, f := range pairs0F38 {
		fill(none38, p6638, opcode, mmxLanes(f), xmmPairs(f))
	}
	p6638[0x2b] = simdOp{fn: xmmPairs(packusdw)}
	for opcode, f := range shifts0F {
		fill(none, p66, opcode, mmxShift(f), xmmShift(f))
	}
	for opcode, f := range unpacks0F {
		none[opcode] = simdOp{fn: mmxUnpackLow(f), mmx: true}
		none[opcode+8] = simdOp{fn: mmxUnpackHigh(f), mmx: true}
	}
}
