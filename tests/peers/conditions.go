package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// Conditions of a run, which its figures hold for.
type conditions struct {
	Begun       string `json:"begun"`
	Cores       int    `json:"cores"`
	Processor   string `json:"processor"`
	Kernel      string `json:"kernel"`
	FileSystem  string `json:"file_system"`
	Go          string `json:"go"`
	LoadAverage string `json:"load_average_before"`
	BodyBytes   int    `json:"body_bytes"`
	Rounds      int    `json:"rounds"`
	Seconds     int    `json:"seconds"`
	OpenSeconds int    `json:"open_seconds"`
	Backlog     int    `json:"backlog"`
	Kills       int    `json:"kills"`
}

func conditionsOf(o options) conditions {
	load, _ := os.ReadFile("/proc/loadavg")
	return conditions{
		Begun: time.Now().UTC().Format(time.RFC3339), Cores: runtime.NumCPU(), Processor: processor(), Kernel: kernel(),
		FileSystem: fileSystem(o.folder), Go: runtime.Version(), LoadAverage: strings.Join(strings.Fields(string(load))[:3], " "),
		BodyBytes: bodyBytes, Rounds: o.rounds, Seconds: o.seconds, OpenSeconds: o.openSeconds, Backlog: o.backlog, Kills: o.kills,
	}
}

func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, is := strings.CutPrefix(lines.Text(), "model name"); is {
			return strings.Trim(name, "\t :")
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return "Linux " + strings.TrimSpace(string(release))
}

// fileSystem of a folder: its type, by the longest mount point above it.
func fileSystem(folder string) string {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "unknown"
	}
	kind, point := "unknown", ""
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 2 && len(fields[1]) >= len(point) && isBelow(folder, fields[1]) {
			point, kind = fields[1], fields[2]
		}
	}
	var room syscall.Statfs_t
	if err := syscall.Statfs(folder, &room); err != nil {
		return kind
	}
	return fmt.Sprintf("%s, %d GiB free", kind, room.Bavail*uint64(room.Bsize)>>30)
}

// moduleVersion is that of a library in this program.
func moduleVersion(path string) string {
	if built, ok := debug.ReadBuildInfo(); ok {
		for _, module := range built.Deps {
			if module.Path == path {
				return strings.TrimPrefix(module.Version, "v")
			}
		}
	}
	return "unknown"
}

func isBelow(folder, point string) bool {
	return folder == point || strings.HasPrefix(folder, strings.TrimSuffix(point, "/")+"/")
}

func (c conditions) text() string {
	text := fmt.Sprintf("%s: %d cores (%s), %s, data on %s; load average before: %s\n", c.Begun, c.Cores, c.Processor, c.Kernel,
		c.FileSystem, c.LoadAverage)
	text += fmt.Sprintf("Three nodes and their load on these cores, loopback, bodies of %d bytes, rounds (medians of them): %d, of %d s (%d s "+
		"where messages are due at a rate), a backlog of %s to receive.\n", c.BodyBytes, c.Rounds, c.Seconds, c.OpenSeconds, grouped(int64(c.Backlog)))
	if strings.HasPrefix(c.FileSystem, "tmpfs") {
		text += "The data lies in memory: syncing costs nothing here, and what is compared is not what a disk would do (--folder).\n"
	}
	return text
}
