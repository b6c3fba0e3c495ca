// Goprogram uses what Go programs use. What it prints must be the same in a guest
// as on the machine that built it.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Println("child", os.Args[1:])
		return
	}
	for _, f := range []func() error{floats, maps, garbage, goroutines, digests, texts, network, faults, process} {
		if err := f(); err != nil {
			fmt.Println("error:", err)
		}
	}
}

func floats() error {
	h := sha256.New()
	for i := range 2000 {
		x := float64(i)*1.37 - 1000
		fmt.Fprintln(h, math.Sin(x), math.Cos(x), math.Exp(x/200), math.Log(math.Abs(x)), math.Sqrt(math.Abs(x)), math.Atan(x), math.Cbrt(x),
			math.Floor(x), math.Trunc(x), math.RoundToEven(x), math.FMA(x, x, 1), float32(x)*float32(x), int64(x), uint8(i))
	}
	fmt.Printf("floats %x\n", h.Sum(nil))
	f := big.NewInt(1)
	for i := int64(2); i <= 400; i++ {
		f.Mul(f, big.NewInt(i))
	}
	q, r := new(big.Int).QuoRem(f, big.NewInt(1_000_000_007_000_000_009), new(big.Int))
	fmt.Println("big", q.BitLen(), r, new(big.Int).Exp(big.NewInt(3), big.NewInt(10_000), big.NewInt(1_000_003)))
	hi, lo := bits.Mul64(0xfedc_ba98_7654_3210, 0x0123_4567_89ab_cdef)
	fmt.Printf("bits %x %x %d %d %d\n", hi, lo, bits.OnesCount64(lo), bits.LeadingZeros32(77), bits.TrailingZeros64(hi))
	return nil
}

func maps() error {
	random := rand.New(rand.NewPCG(1, 2))
	m := map[string]int{}
	for range 50_000 {
		m[fmt.Sprint(random.IntN(10_000))]++
	}
	for k := range m {
		if strings.HasSuffix(k, "7") {
			delete(m, k)
		}
	}
	sum := 0
	for k, v := range m {
		sum += v * len(k)
	}
	fmt.Println("map", len(m), sum)
	v := make([]float64, 30_000)
	for i := range v {
		v[i] = random.NormFloat64()
	}
	slices.SortFunc(v, cmp.Compare)
	fmt.Println("sorted", slices.IsSorted(v), v[0], v[len(v)/2])
	return nil
}

type tree struct {
	left, right *tree
	data        []byte
}

func grow(depth int) *tree {
	if depth == 0 {
		return nil
	}
	return &tree{grow(depth - 1), grow(depth - 1), bytes.Repeat([]byte{byte(depth)}, depth*8)}
}

func (t *tree) sum() int {
	if t == nil {
		return 0
	}
	return int(t.data[0])*len(t.data) + t.left.sum() + t.right.sum()
}

func garbage() error {
	kept := grow(12)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		grow(11)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	fmt.Println("garbage", kept.sum(), after.NumGC > before.NumGC, after.HeapAlloc < 64<<20)
	return nil
}

func goroutines() error {
	var n atomic.Int64
	var wait sync.WaitGroup
	numbers := make(chan int)
	sums := make(chan int, 16)
	for range cap(sums) {
		wait.Go(func() {
			sum := 0
			for v := range numbers {
				sum += v
				n.Add(1)
				if v%100 == 0 {
					runtime.Gosched()
				}
			}
			sums <- sum
		})
	}
	for v := range 20_000 {
		numbers <- v
	}
	close(numbers)
	wait.Wait()
	total := 0
	for range cap(sums) {
		total += <-sums
	}
	start := time.Now()
	select {
	case <-time.After(20 * time.Millisecond):
	case <-numbers:
		<-time.After(20 * time.Millisecond)
	}
	// One that never yields is preempted by a signal.
	var stop atomic.Bool
	spun := make(chan bool)
	old := runtime.GOMAXPROCS(1)
	go func() {
		for !stop.Load() {
		}
		close(spun)
	}()
	time.Sleep(time.Millisecond)
	stop.Store(true)
	<-spun
	runtime.GOMAXPROCS(old)
	fmt.Println("goroutines", n.Load(), total, time.Since(start) >= 20*time.Millisecond)
	return nil
}

func digests() error {
	data := make([]byte, 200_000)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	r, err := gzip.NewReader(&packed)
	if err != nil {
		return err
	}
	again, err := io.ReadAll(r)
	fmt.Printf("digests %x %x %08x %v\n", sha256.Sum256(data), sha512.Sum512(data), crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)), bytes.Equal(data, again))
	return err
}

func texts() error {
	text := strings.Repeat("the quick brown fox jumps over the lazy dog; ", 200)
	words := regexp.MustCompile(`\b(\w)(\w*)\b`).ReplaceAllString(text, "$2$1")
	var back []any
	b, err := json.Marshal([]any{words[:40], 1.5, map[string]any{"a": nil, "b": []int{1, 2, 3}}})
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	fmt.Println("text", len(words), strings.Count(words, "oxf"), strings.LastIndex(words, "uickq"), strings.EqualFold(text, strings.ToUpper(text)), back)
	return err
}

func network() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	sums := make([]int, 8)
	var wait sync.WaitGroup
	for i := range sums {
		wait.Go(func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				fmt.Println("error:", err)
				return
			}
			defer c.Close()
			in := bufio.NewReader(c)
			for n := range 50 {
				fmt.Fprintf(c, "%d %s\n", n*i, strings.Repeat("x", n*20))
				var number int
				var rest string
				if _, err := fmt.Fscanln(in, &number, &rest); err != nil && n > 0 {
					fmt.Println("error:", err)
				}
				sums[i] += number + len(rest)
			}
		})
	}
	wait.Wait()
	fmt.Println("network", sums)
	return nil
}

func faults() (err error) {
	defer func() {
		fmt.Println("recovered:", recover())
	}()
	for _, f := range []func(){
		func() { var p *tree; p.data = nil },
		func() { zero := len(os.Args) - 1; fmt.Println(1 / zero) },
	} {
		func() {
			defer func() { fmt.Println("recovered:", recover()) }()
			f()
		}()
	}
	return nil
}

func process() error {
	out, err := exec.Command(os.Args[0], "with", "arguments").CombinedOutput()
	fmt.Printf("process %q %v\n", out, err)
	return nil
}
