/// A device as a bus sees it: registers at offsets, and nothing about where they are.
///
/// ## Lock order
/// device, then interrupt controller, then vCPU. A device holds its own lock while it drives its line or asks
/// something of the machine; nothing that a line, an alarm or the machine does may take a device's lock again.
public protocol BusDevice: AnyObject, Sendable {
    /// Reads `width` bytes at `offset` from the device's first register.
    ///
    /// The bus guarantees `offset + width` lies within the range registered, and `width` within its widest access.
    /// - Returns: the value, zero-extended; bits above `width` are ignored.
    func read(offset: UInt64, width: AccessWidth) -> UInt64

    /// Writes the low `width` bytes of `value`. The same guarantees hold.
    func write(offset: UInt64, width: AccessWidth, value: UInt64)
}

/// Why a bus cannot be built as asked: our own address map is wrong, or two devices of a configuration collide.
public enum BusError: Error, Hashable, CustomStringConvertible {
    case empty(name: String)
    case wraps(name: String, base: UInt64, count: UInt64)
    case overlaps(name: String, other: String, base: UInt64)

    public var description: String {
        switch self {
        case .empty(let name):
            "\(name) claims no addresses"
        case .wraps(let name, let base, let count):
            "\(name) at \(GuestAddress(base)) with \(count) bytes reaches past the address space"
        case .overlaps(let name, let other, let base):
            "\(name) at \(GuestAddress(base)) overlaps \(other)"
        }
    }
}

/// What a machine's bus is built from: devices are added, then the bus is made and does not change again.
public struct BusMap: Sendable {
    struct Entry: Sendable {
        var base: UInt64
        /// The last address, inclusive: a range may end at 2^64 - 1.
        var last: UInt64
        var widest: AccessWidth
        var name: String
        var device: any BusDevice
    }

    private(set) var entries: [Entry] = []

    public init() {}

    /// Puts a device on the bus.
    ///
    /// - Parameters:
    ///   - widest: the widest access the device decodes; the bus splits wider ones, low bytes first,
    ///     as an ISA bridge does for an 8-bit card.
    /// - Throws: `BusError` for an empty range, one past the address space, or one that another device holds.
    public mutating func add(
        _ device: any BusDevice, name: String, base: UInt64, count: UInt64, widest: AccessWidth
    ) throws(BusError) {
        guard count > 0 else { throw .empty(name: name) }
        let (last, overflow) = base.addingReportingOverflow(count - 1)
        guard !overflow else { throw .wraps(name: name, base: base, count: count) }
        let index = entries.firstIndex { $0.base > base } ?? entries.endIndex
        if index > 0, entries[index - 1].last >= base {
            throw .overlaps(name: name, other: entries[index - 1].name, base: base)
        }
        if index < entries.endIndex, entries[index].base <= last {
            throw .overlaps(name: name, other: entries[index].name, base: base)
        }
        entries.insert(Entry(base: base, last: last, widest: widest, name: name, device: device), at: index)
    }

    /// Each range held: name, first address, last address. In ascending order.
    public var ranges: [(name: String, base: UInt64, last: UInt64)] {
        entries.map { ($0.name, $0.base, $0.last) }
    }
}

/// Routes port or memory-mapped accesses to devices. One each for the two address spaces.
///
/// Immutable once made, so vCPU threads look devices up with no lock; what moves at run time
/// (PCI windows) is a device that routes within its own range.
///
/// An address nobody claims reads as all ones and swallows writes, as an undriven bus does.
/// An access that starts in one device and ends past it is split, byte by byte.
public final class Bus: Sendable {
    private let entries: [BusMap.Entry]

    public init(_ map: BusMap) { entries = map.entries }

    /// The index of the entry that holds `address`. Complexity: O(log n).
    private func find(_ address: UInt64) -> Int? {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low &+ high) / 2
            if entries[middle].base <= address { low = middle &+ 1 } else { high = middle }
        }
        guard low > 0, entries[low &- 1].last >= address else { return nil }
        return low &- 1
    }

    /// Reads `width` bytes at `address`.
    public func read(_ address: UInt64, width: AccessWidth) -> UInt64 {
        if let index = find(address) {
            let entry = entries[index]
            if width.rawValue <= entry.widest.rawValue, width.bytes &- 1 <= entry.last &- address {
                return entry.device.read(offset: address &- entry.base, width: width) & width.mask
            }
            return readSplit(address, width: width)
        }
        // Nothing here; yet the tail of the access may lie in a device.
        return width == .byte ? 0xFF : readSplit(address, width: width)
    }

    /// Writes the low `width` bytes of `value` at `address`.
    public func write(_ address: UInt64, width: AccessWidth, value: UInt64) {
        if let index = find(address) {
            let entry = entries[index]
            if width.rawValue <= entry.widest.rawValue, width.bytes &- 1 <= entry.last &- address {
                entry.device.write(offset: address &- entry.base, width: width, value: value & width.mask)
                return
            }
            writeSplit(address, width: width, value: value)
        } else if width != .byte {
            writeSplit(address, width: width, value: value)
        }
    }

    /// Splits an access in halves until each part fits one device, low bytes first.
    private func readSplit(_ address: UInt64, width: AccessWidth) -> UInt64 {
        guard let half = AccessWidth(bytes: Int(width.rawValue / 2)) else { return 0xFF }
        let low = read(address, width: half)
        let high = read(address &+ half.bytes, width: half)
        return low | high << (half.bytes &* 8)
    }

    private func writeSplit(_ address: UInt64, width: AccessWidth, value: UInt64) {
        guard let half = AccessWidth(bytes: Int(width.rawValue / 2)) else { return }
        write(address, width: half, value: value)
        write(address &+ half.bytes, width: half, value: value >> (half.bytes &* 8))
    }

    /// Reads any number of bytes from 1 to 8, as an engine reports a page-crossing access: in power-of-two parts.
    public func read(_ address: UInt64, count: Int) -> UInt64 {
        if let width = AccessWidth(bytes: count) { return read(address, width: width) }
        var value: UInt64 = 0
        for index in 0..<UInt64(clamping: max(0, min(count, 8))) {
            value |= read(address &+ index, width: .byte) << (index &* 8)
        }
        return value
    }

    /// Writes any number of bytes from 1 to 8.
    public func write(_ address: UInt64, count: Int, value: UInt64) {
        if let width = AccessWidth(bytes: count) { return write(address, width: width, value: value) }
        for index in 0..<UInt64(clamping: max(0, min(count, 8))) {
            write(address &+ index, width: .byte, value: value >> (index &* 8))
        }
    }
}
