#!/usr/bin/env bash
# etcd 3.6.10 on ext4: the write-ahead log is preallocated, and each flush of a new block of it commits the file system's
# journal all the same.
#
# One would guess: etcd makes its log files of 64 MB in full length before use, so that an append changes no metadata and
# fdatasync writes the data only.
# What happens: the blocks are reserved but marked as unwritten. The first write to a block turns the mark, which is metadata:
# fdatasync then waits for a commit of the journal (more writes, and one more flush of the device) for each append that reaches
# a new block. With entries of 4 KiB that is each append. A file whose blocks were once written, if with zeros only, needs none.
# Who meets it: who measures etcd's disk with a tool that writes over an existing file (its fsync times look far better than
# etcd's own), and who copies the design for another log.
#
# Seen (commits of the journal in 200 appends of 4 KiB, each flushed; Linux 6.18, ext4 as mke2fs 1.47.0 makes it; `zeros` is
# a file that was filled with zeros before):
#   etcd 200
#   zeros 0
#
# Needs: Go 1.26 or newer, Linux, e2fsprogs, and root (it mounts a file system of its own from a file).
set -euo pipefail
folder=$(mktemp -d)
trap 'umount -q "$folder/disk" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
cat >go.mod <<'END'
module example.org/appends

go 1.26.0

require (
	go.etcd.io/etcd/server/v3 v3.6.10
	go.etcd.io/raft/v3 v3.6.0
)
END
cat >main.go <<'END'
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

const (
	appends = 200
	size    = 4096
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// How many transactions the journal has committed, by its own count.
func commits() (count int) {
	must(fmt.Sscan(strings.Fields(string(must(os.ReadFile(os.Args[1]))))[0], &count))
	return count
}

func measure(name string, append func(i int)) {
	syscall.Sync()
	before := commits()
	for i := range appends {
		append(i)
	}
	fmt.Printf("%s %d\n", name, commits()-before)
}

func main() {
	data := make([]byte, size)
	for i := range data {
		data[i] = 1
	}
	log := must(wal.Create(zap.NewNop(), "disk/wal", nil))
	measure("etcd", func(i int) {
		entry := raftpb.Entry{Term: 1, Index: uint64(i + 1), Data: data}
		must(0, log.Save(raftpb.HardState{Term: 1, Commit: uint64(i)}, []raftpb.Entry{entry}))
	})
	must(0, log.Close())

	file := must(os.Create("disk/zeros"))
	must(file.Write(make([]byte, appends*size)))
	must(0, file.Sync())
	measure("zeros", func(i int) {
		must(file.WriteAt(data, int64(i*size)))
		must(0, syscall.Fdatasync(int(file.Fd())))
	})
}
END
go mod tidy 2>/dev/null
go build -o appends .

truncate -s 400M image
mke2fs -q -t ext4 -F image
mkdir disk
mount -o loop image disk
device=$(basename "$(findmnt -no SOURCE disk)")
uname -sr
mke2fs -V 2>&1 | sed -n 1p
./appends "/proc/fs/jbd2/$device-8/info" | tee seen
etcd=$(sed -n 's/^etcd //p' seen) zeros=$(sed -n 's/^zeros //p' seen)
# The system may commit now and then of its own accord.
[ "$etcd" -ge 180 ] && [ "$zeros" -le 20 ] || { echo "changed: other numbers of commits"; exit 1; }
