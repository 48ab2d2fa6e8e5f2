public import VMCore

/// What a driver did to a queue that no device can go on from: it asks for a reset.
public enum QueueError: Error, Hashable, Sendable {
    /// A size of 0, one above the most, or, in the split layout, no power of two.
    case badSize(UInt16)
    /// A part of the ring is not aligned as it must be.
    case misaligned(GuestAddress)
    /// A part of the ring, or a buffer, is not within one region of guest memory.
    case outsideMemory(address: GuestAddress, count: UInt64)
    /// More buffers were made available than the queue has room for.
    case overrun(available: UInt16)
    /// A descriptor's index is beyond its table.
    case badIndex(UInt16)
    /// A chain that is longer than its table, or without an end.
    case endlessChain
    /// A device-readable descriptor behind a device-writable one.
    case readableAfterWritable
    /// An indirect table that is empty, no whole number of descriptors, too long, nested or chained further.
    case badIndirectTable(count: UInt32)
    /// A chain of more bytes than 2^32.
    case tooManyBytes
    /// A chain that is not of the shape that the device's requests have.
    case malformedRequest(StaticStringBox)

    /// Text that is part of the program, comparable.
    public struct StaticStringBox: Hashable, Sendable, ExpressibleByStringLiteral {
        public let text: String
        public init(stringLiteral text: String) { self.text = text }
    }
}

extension QueueError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .badSize(let size): "a queue size of \(size)"
        case .misaligned(let address): "a ring that is not aligned, at \(address)"
        case .outsideMemory(let address, let count): "\(count) bytes at \(address), which are not in the guest's memory"
        case .overrun(let available): "\(available) buffers available at once, more than the queue's size"
        case .badIndex(let index): "descriptor \(index), which its table does not have"
        case .endlessChain: "a descriptor chain longer than its table"
        case .readableAfterWritable: "a readable descriptor behind a writable one"
        case .badIndirectTable(let count): "an indirect table of \(count) bytes that cannot be one"
        case .tooManyBytes: "a descriptor chain of more than 4 GiB"
        case .malformedRequest(let what): "a malformed request: \(what.text)"
        }
    }
}
