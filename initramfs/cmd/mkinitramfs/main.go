// Command mkinitramfs builds a guest's root file system image from u-root
// and the files that it is given. It is a build tool; package initramfs does
// the work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"fifovm/initramfs"
)

const usage = `usage: mkinitramfs -o FILE [flags]

Builds a Linux guest's initramfs: u-root's init, shell and commands, and your files.

  -o FILE               the image to write
  --files SRC:DST[:MODE]  add a file or folder of this machine at DST; repeatable
  --commands LIST       u-root commands, comma separated; "+a,b" adds to the default
  --compress METHOD     none (default: boots faster), gzip or zstd
  --base IMAGE          append the files to an image made before; compiles nothing
  --help                this text

Default commands: `

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "mkinitramfs:", err)
	var bad usageError
	if errors.As(err, &bad) {
		os.Exit(2)
	}
	os.Exit(1)
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		output, commands, compress, base string
		files                            []initramfs.File
	)
	fs := flag.NewFlagSet("mkinitramfs", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.StringVar(&output, "o", "", "")
	fs.StringVar(&commands, "commands", "", "")
	fs.StringVar(&compress, "compress", string(initramfs.None), "")
	fs.StringVar(&base, "base", "", "")
	fs.Func("files", "", func(s string) error {
		f, err := initramfs.ParseFile(s)
		files = append(files, f)
		return err
	})
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "%s%s\n", usage, strings.Join(initramfs.DefaultCommands, " "))
		return err
	} else if err != nil {
		return usageError{err}
	}
	switch {
	case fs.NArg() > 0:
		return usageError{fmt.Errorf("unexpected argument %q: see --help", fs.Arg(0))}
	case output == "":
		return usageError{errors.New("no output file: give -o FILE, see --help")}
	case base != "" && (commands != "" || compress != string(initramfs.None)):
		return usageError{errors.New("--base takes the image as it is: leave out --commands and --compress")}
	}
	if base != "" {
		return initramfs.Append(output, base, files)
	}
	compression, err := initramfs.ParseCompression(compress)
	if err != nil {
		return usageError{err}
	}
	o := initramfs.Options{
		Files:       files,
		Compression: compression,
		Log:         func(format string, a ...any) { fmt.Fprintf(stderr, "mkinitramfs: "+format+"\n", a...) },
	}
	if list, more := strings.CutPrefix(commands, "+"); commands != "" {
		o.Commands = strings.Split(list, ",")
		if more {
			o.Commands = append(o.Commands, initramfs.DefaultCommands...)
		}
	}
	return initramfs.Create(ctx, output, o)
}
