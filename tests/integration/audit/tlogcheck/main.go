// tlogcheck answers questions about Merkle trees and signed notes with the Go project's own libraries, one JSON object per line.
// Tests compare what it says with what AgentOS makes: neither knows the other's code.
package main

import (
	"bufio"
	"encoding/json"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type question struct {
	Op     string   `json:"op"`
	Leaves [][]byte `json:"leaves"`
	Size   int64    `json:"size"`
	Old    int64    `json:"old"`
	Index  int64    `json:"index"`
	Data   []byte   `json:"data"`
	Path   [][]byte `json:"path"`
	Root   []byte   `json:"root"`
	Before []byte   `json:"before"`
	Level  int      `json:"level"`
	Number int64    `json:"number"`
	Width  int      `json:"width"`
	Note   string   `json:"note"`
	Keys   []string `json:"keys"`
	Text   string   `json:"text"`
}

type answer struct {
	OK     bool     `json:"ok"`
	Error  string   `json:"error,omitempty"`
	Hash   []byte   `json:"hash,omitempty"`
	Hashes [][]byte `json:"hashes,omitempty"`
	Names  []string `json:"names,omitempty"`
	Note   string   `json:"note,omitempty"`
}

type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		out[i] = m[at]
	}
	return out, nil
}

func grow(leaves [][]byte) (memory, error) {
	var m memory
	for n, data := range leaves {
		hashes, err := tlog.StoredHashes(int64(n), data, m)
		if err != nil {
			return nil, err
		}
		m = append(m, hashes...)
	}
	return m, nil
}

func hash(raw []byte) (h tlog.Hash) {
	copy(h[:], raw)
	return h
}

func hashes(path [][]byte) []tlog.Hash {
	var out []tlog.Hash
	for _, raw := range path {
		out = append(out, hash(raw))
	}
	return out
}

func raw(hashes []tlog.Hash) [][]byte {
	out := [][]byte{}
	for _, h := range hashes {
		out = append(out, append([]byte{}, h[:]...))
	}
	return out
}

func reply(q question) (a answer, err error) {
	switch q.Op {
	case "root", "include", "extend", "tile":
		m, err := grow(q.Leaves)
		if err != nil {
			return a, err
		}
		switch q.Op {
		case "root":
			h, err := tlog.TreeHash(q.Size, m)
			a.Hash = h[:]
			return a, err
		case "include":
			p, err := tlog.ProveRecord(q.Size, q.Index, m)
			a.Hashes = raw(p)
			return a, err
		case "extend":
			p, err := tlog.ProveTree(q.Size, q.Old, m)
			a.Hashes = raw(p)
			return a, err
		default:
			a.Hash, err = tlog.ReadTileData(tlog.Tile{H: 8, L: q.Level, N: q.Number, W: q.Width}, m)
			return a, err
		}
	case "included":
		return a, tlog.CheckRecord(hashes(q.Path), q.Size, hash(q.Root), q.Index, tlog.RecordHash(q.Data))
	case "extends":
		return a, tlog.CheckTree(hashes(q.Path), q.Size, hash(q.Root), q.Old, hash(q.Before))
	case "open":
		var verifiers []note.Verifier
		for _, key := range q.Keys {
			v, err := note.NewVerifier(key)
			if err != nil {
				return a, err
			}
			verifiers = append(verifiers, v)
		}
		n, err := note.Open([]byte(q.Note), note.VerifierList(verifiers...))
		if err != nil {
			return a, err
		}
		a.Note = n.Text
		for _, sig := range n.Sigs {
			a.Names = append(a.Names, sig.Name)
		}
		return a, nil
	default: // sign
		signer, err := note.NewSigner(q.Keys[0])
		if err != nil {
			return a, err
		}
		msg, err := note.Sign(&note.Note{Text: q.Text}, signer)
		a.Note = string(msg)
		return a, err
	}
}

func main() {
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	decoder := json.NewDecoder(in)
	for {
		var q question
		if decoder.Decode(&q) != nil {
			return
		}
		a, err := reply(q)
		a.OK = err == nil
		if err != nil {
			a.Error = err.Error()
		}
		out.Encode(a)
	}
}
