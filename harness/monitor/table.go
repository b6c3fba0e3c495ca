package monitor

// table is all commands.
func (m *Monitor) table() []Command {
	devices := func(arg int) []string {
		if arg == 0 {
			return m.devices()
		}
		return nil
	}
	words := func(all ...string) func(int) []string {
		return func(arg int) []string {
			if arg == 0 {
				return all
			}
			return nil
		}
	}
	functions := func(more ...string) func(int) []string {
		return func(arg int) []string {
			if arg > len(more) {
				return nil
			}
			m.find()
			return append(more[min(arg, len(more)):], m.cfg.Symbols.functions()...)
		}
	}
	return []Command{
		{"help", "[COMMAND]", "this list, or one of its lines", func(arg int) []string { return words(m.names()...)(arg) }, m.help},
		{"info", "", "the machine, its devices and CPUs", nil, m.named(m.info)},
		{"device", "DEV", "the state of a device, with its rings", devices, m.showDevice},
		{"fault", "PLAN", "break a device, such as: fault fifo0/irq[1]:drop@next (docs/faults.md)", nil, m.fault},
		{"faults", "", "the faults, and how often each has fired", nil, m.faults},
		{"clear", "", "disarm all faults", nil, m.clear},
		{"raise", "DEV VECTOR", "send an interrupt that the device has not raised", devices, m.raise},
		{"drop", "DEV VECTOR", "lose the next interrupt of a vector; intx is the pin", devices, m.drop},
		{"intx", "DEV", "pulse the interrupt pin", devices, m.intx},
		{"trace", "on FILE | off | show N", "write what the devices do to a file (.json: for Perfetto); show the last lines", words("on", "off", "show"), m.trace},
		{"unplug", "DEV", "take a device out, whatever it is doing", devices, m.unplug},
		{"plug", "DEV", "put it back", devices, m.plug},
		{"pause", "", "have the guest stand still", nil, m.named(m.pause)},
		{"continue", "", "let it go on", nil, m.goOn},
		{"step", "[CPU [N]]", "execute an instruction, or N, of a guest that stands still", nil, m.named(m.step)},
		{"registers", "[CPU]", "the registers of a CPU", nil, m.named(m.registers)},
		{"disassemble", "[ADDR [N]]", "N instructions, from where the CPU is unless told otherwise", functions(), m.named(m.disassemble)},
		{"backtrace", "[CPU]", "the functions that a CPU is in, by frame pointers", nil, m.named(m.backtrace)},
		{"modules", "", "the modules that the guest has loaded, where, and the files of their symbols", nil, m.modules},
		{"memory", "[physical] ADDR N", "N bytes of memory, by linear address or by physical", words("physical"), m.named(m.memory)},
		{"break", "[delete] [ADDR | SYMBOL]", "stop there: a function of the kernel's or a module's, +N, or an address; without an argument, list", functions("delete"), m.named(m.breakpoint)},
		{"watch", "[delete] [ADDR N]", "stop when N bytes are written; without an argument, list", words("delete"), m.named(m.watch)},
		{"quit", "", "leave the guest", nil, m.quit},
	}
}
