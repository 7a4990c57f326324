package main

import (
	"fmt"
	"strings"
)

// A figure is what a system gave under a load, in all rounds.
type figure struct {
	Load   load      `json:"load"`
	System string    `json:"system"`
	Rounds []measure `json:"rounds,omitempty"`
	Median measure   `json:"median"`
	// Why there is none.
	Failure string `json:"failure,omitempty"`
}

// A tested system, for the conditions.
type tested struct {
	System   string `json:"system"`
	Version  string `json:"version,omitempty"`
	Settings string `json:"settings"`
	// Why it did not run.
	Failure string `json:"failure,omitempty"`
}

// A report is everything that is printed.
type report struct {
	Conditions conditions `json:"conditions"`
	Systems    []tested   `json:"systems"`
	Figures    []figure   `json:"figures"`
	Pauses     []paused   `json:"pauses"`
}

// layout lines columns up; the first two are text, the others are numbers. The last cell of a row that is shorter than the first
// is a remark.
func layout(rows [][]string) string {
	widths := map[int]int{}
	isRemark := func(row []string, i int) bool { return len(row) < len(rows[0]) && i == len(row)-1 }
	for _, row := range rows {
		for i, cell := range row {
			if isRemark(row, i) {
				continue
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var text strings.Builder
	for _, row := range rows {
		var cells []string
		for i, cell := range row {
			fill := strings.Repeat(" ", max(widths[i]-len([]rune(cell)), 0))
			if i < 2 || isRemark(row, i) {
				cells = append(cells, cell+fill)
			} else {
				cells = append(cells, fill+cell)
			}
		}
		text.WriteString(strings.TrimRight(strings.Join(cells, "  "), " ") + "\n")
	}
	return text.String()
}

// ratio to what ours gave, such as 1.65x.
func ratio(own, ours float64) string {
	if own == 0 || ours == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", own/ours)
}

// number with as many digits as say something; 0 is what was not measured.
func number(n float64) string {
	switch {
	case n == 0:
		return "-"
	case n >= 100:
		return grouped(int64(n + 0.5))
	case n >= 10:
		return fmt.Sprintf("%.1f", n)
	default:
		return fmt.Sprintf("%.2f", n)
	}
}

// grouped writes thousands apart.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// speeds is the table of all loads. Ratios are to RaftQueue under the same load.
func speeds(figures []figure) string {
	rows := [][]string{{"LOAD", "SYSTEM", "MESSAGES/S", "RATIO", "P50 MS", "P99 MS", "P99.9 MS", "SERVER US/MSG", "RATIO", "ERRORS"}}
	var ours figure
	for i, f := range figures {
		title := ""
		if i == 0 || figures[i-1].Load.Name != f.Load.Name {
			title, ours = f.Load.title(), figure{}
		}
		if f.System == (&raftqueue{}).name() {
			ours = f
		}
		if f.Failure != "" {
			rows = append(rows, []string{title, f.System, f.Failure})
			continue
		}
		m, base := f.Median, ours.Median
		rows = append(rows, []string{
			title, f.System, number(m.PerSecond), ratio(m.PerSecond, base.PerSecond), number(m.P50), number(m.P99), number(m.P999),
			number(m.ServerMicros), ratio(m.ServerMicros, base.ServerMicros), fmt.Sprint(m.Errors + m.Missed),
		})
	}
	return layout(rows)
}

// text is the report for people.
func (r report) text() string {
	var text strings.Builder
	text.WriteString(r.Conditions.text())
	for _, s := range r.Systems {
		if s.Failure != "" {
			fmt.Fprintf(&text, "%s did not run: %s\n", s.System, s.Failure)
			continue
		}
		fmt.Fprintf(&text, "%s: %s; %s\n", s.System, s.Version, s.Settings)
	}
	if len(r.Figures) > 0 {
		text.WriteString("\n" + speeds(r.Figures))
	}
	if len(r.Pauses) > 0 {
		text.WriteString("\n" + pauses(r.Pauses))
	}
	return text.String()
}
