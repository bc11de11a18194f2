package report

import (
	"strings"
	"unicode/utf8"
)

// grid is a table of text: columns two spaces apart, the first ones to the left,
// numbers to the right.
type grid struct {
	left  int      // columns that are aligned to the left
	short []string // a first row with shorter names, for when the grid is too wide
	rows  [][]string
}

// minColumn is what a left column keeps when it gives way.
const minColumn = 8

func (g *grid) row(cells ...string) { g.rows = append(g.rows, cells) }

// lines lays the grid out. If it is wider than width, it takes the short names;
// then the left columns give way, the widest first.
func (g *grid) lines(width int) []string {
	widths, total := g.widths()
	if total > width && len(g.short) > 0 {
		g.rows[0] = g.short
		widths, total = g.widths()
	}
	for total > width {
		widest := 0
		for i := range g.left {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= minColumn {
			break
		}
		widths[widest]--
		total--
	}
	lines := make([]string, 0, len(g.rows))
	for _, row := range g.rows {
		lines = append(lines, g.line(row, widths))
	}
	return lines
}

// widths is the width of every column, and of the whole grid.
func (g *grid) widths() (widths []int, total int) {
	for _, row := range g.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	total = 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	return widths, total
}

func (g *grid) line(row []string, widths []int) string {
	var b strings.Builder
	for i, cell := range row {
		if i > 0 {
			b.WriteString("  ")
		}
		cell = clip(cell, widths[i])
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if i < g.left {
			b.WriteString(cell + pad)
		} else {
			b.WriteString(pad + cell)
		}
	}
	return strings.TrimRight(b.String(), " ")
}
