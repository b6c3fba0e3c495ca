package soft

import (
	"bytes"
	"testing"

	"fifovm/vmm/memory"
)

// TestRewind: whichever way the guest wrote, nothing of it is left after Rewind:
// not in memory, the page tables' accessed and dirty bits included, and not in
// the code that was decoded.
func TestRewind(t *testing.T) {
	const page = 0x40000 // and on: each way of writing has one of its own
	for name, code := range map[string][]byte{
		"mov":               {0x48, 0xc7, 0x07, 1, 2, 3, 4},                                     // mov qword [rdi], imm
		"two pages":         {0x48, 0xc7, 0x87, 0xfc, 0x0f, 0, 0, 1, 2, 3, 4},                   // mov qword [rdi+0xffc], imm
		"rep stos":          {0xb9, 0, 0x20, 0, 0, 0xb0, 0x55, 0xf3, 0xaa},                      // mov ecx, 0x2000; mov al, 0x55; rep stosb
		"rep movs":          {0xbe, 0, 0, 5, 0, 0xb9, 0, 0x20, 0, 0, 0xf3, 0xa4},                // mov esi, 0x50000; mov ecx; rep movsb
		"locked":            {0xf0, 0x48, 0x83, 0x0f, 1},                                        // lock or qword [rdi], 1
		"16 bytes":          {0x66, 0x0f, 0x76, 0xc0, 0x0f, 0x11, 0x07},                         // pcmpeqd xmm0, xmm0; movups [rdi], xmm0
		"FXSAVE":            {0x0f, 0xae, 0x07},                                                 // fxsave [rdi]
		"twice":             {0xc6, 0x07, 1, 0xc6, 0x47, 1, 2, 0xc6, 0x47, 2, 3},                // the TLB has it
		"push":              {0x48, 0x89, 0xfc, 0x6a, 0x01},                                     // mov rsp, rdi; push 1
		"its own code":      {0xc6, 0x05, 1, 0, 0, 0, 7, 0xb0, 1, 0xaa},                         // mov byte [rip+1], 7; mov al, 1 (now 7); stosb
		"code that has run": {0xe8, 5, 0, 0, 0, 0xc6, 0x05, 1, 0, 0, 0, 7, 0xb0, 1, 0xaa, 0xc3}, // call; mov byte [rip+1], 7; mov al, 1; stosb; ret
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, 1, []byte{0xbf, 0, 0, 4, 0}, code, hlt) // mov edi, page
			g.write(0x5_0000, bytes.Repeat([]byte("rep movs"), 0x400))
			g.set()
			base, err := memory.NewBase(g.ram)
			if err != nil {
				t.Fatal(err)
			}
			defer base.Close()
			if err := g.ram.SetBase(base); err != nil {
				t.Fatal(err)
			}
			if err := g.engine.TrackRAM(); err != nil {
				t.Fatal(err)
			}
			image, err := base.NewRAM()
			if err != nil {
				t.Fatal(err)
			}
			defer image.Close()
			was := bytes.Clone(image.Slots()[0].Bytes)
			var first []byte
			for round := range 3 {
				g.engine.cfg.Time.Set(0)
				g.run(20_000)
				now := bytes.Clone(g.ram.Slots()[0].Bytes)
				if bytes.Equal(now[page-0x1000:page+0x3000], was[page-0x1000:page+0x3000]) {
					t.Fatalf("the guest has written nothing: %v, %x", g.engine.err, g.cpu.r[slotRIP])
				}
				if round == 0 {
					first = now
				} else if !bytes.Equal(now, first) {
					t.Errorf("run %d leaves other bytes than the first", round+1)
				}
				g.engine.cfg.Time.Set(0)
				if err := g.engine.Rewind(g.start); err != nil {
					t.Fatal(err)
				}
				for i, b := range g.ram.Slots()[0].Bytes {
					if b != was[i] {
						t.Fatalf("after Rewind the byte at %#x is %#x, in the base %#x", i, b, was[i])
					}
				}
			}
		})
	}
}
