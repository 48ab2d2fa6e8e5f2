/// Bytes of a structure being built: integers go in low byte first.
///
/// Offsets are this module's own constants, so one outside the bytes is a mistake of ours and traps.
struct LittleEndianBytes {
    private(set) var bytes: [UInt8]

    init(count: Int = 0) { bytes = [UInt8](repeating: 0, count: count) }

    var count: Int { bytes.count }

    mutating func store<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        for index in 0..<MemoryLayout<Value>.size {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> Value(8 * index))
        }
    }

    mutating func store(_ values: [UInt8], at offset: Int) {
        bytes.replaceSubrange(offset..<offset + values.count, with: values)
    }

    mutating func append<Value: FixedWidthInteger>(_ value: Value) {
        for index in 0..<MemoryLayout<Value>.size {
            bytes.append(UInt8(truncatingIfNeeded: value >> Value(8 * index)))
        }
    }

    mutating func append(_ values: [UInt8]) { bytes += values }

    /// Appends zeros up to a multiple of `alignment`.
    mutating func align(to alignment: Int) {
        while bytes.count % alignment != 0 { bytes.append(0) }
    }
}
