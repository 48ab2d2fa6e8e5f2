/// Where the rows of each opcode are: `OpcodeIndex.entry` is the decoder's one table look-up by opcode.
enum OpcodeIndex {
    /// Rows of one opcode are neighbours in one table.
    struct Entry: BitwiseCopyable {
        /// Bits 15:0 the first row, 23:16 how many, 24 whether a ModRM byte follows.
        let bits: UInt32

        @inline(__always)
        init(bits: UInt32) { self.bits = bits }

        @inline(__always)
        var first: RowID { RowID(unchecked: UInt16(truncatingIfNeeded: bits)) }
        @inline(__always)
        var count: UInt16 { UInt16(truncatingIfNeeded: bits &>> 16 & 0xFF) }
        @inline(__always)
        var hasModRM: Bool { bits & 0x0100_0000 != 0 }
    }

    @inline(__always)
    static func entry(map: OpcodeMap, opcode: UInt8) -> Entry {
        Entry(bits: opcodeIndex[Int(map.rawValue) &<< 8 | Int(opcode)])
    }

    /// The index as the rows ask for it. The one in use is this one's result, committed as static data: a test
    /// compares the two, and says how to write it anew.
    ///
    /// - Returns: 256 entries for each map, in the order of `OpcodeMap`; nil if an opcode's rows are not neighbours or
    ///   disagree on ModRM.
    static func build() -> [UInt32]? {
        var entries = [UInt32](repeating: 0, count: OpcodeMap.allCases.count * 256)
        for id in RowID.all {
            let row = id.row
            let last = row.traits.contains(.plusR) ? row.opcode | 7 : row.opcode
            for opcode in row.opcode...last {
                let slot = Int(id.map.rawValue) << 8 | Int(opcode)
                let modRM: UInt32 = row.usesModRM ? 0x0100_0000 : 0
                let entry = Entry(bits: entries[slot])
                if entry.count == 0 {
                    entries[slot] = UInt32(id.rawValue) | 1 << 16 | modRM
                } else {
                    guard entry.first.rawValue + entry.count == id.rawValue, entry.bits & 0x0100_0000 == modRM
                    else { return nil }
                    entries[slot] += 1 << 16
                }
            }
        }
        return entries
    }
}
