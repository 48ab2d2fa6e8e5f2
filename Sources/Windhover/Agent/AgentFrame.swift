/// A frame between host and agent: a kind and a payload. Laid out in docs/agent.md.
struct AgentFrame: Hashable, Sendable {
    var kind: UInt16
    var payload: [UInt8]

    static let headerLength = 8
    /// Most bytes of a payload that are taken from the agent.
    static let longestFromAgent = 64 << 10
    /// Most bytes of a payload that the agent takes.
    static let longestFromHost = 16 << 20

    /// The frame's bytes. The payload is one that the receiver takes.
    var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.headerLength + payload.count)
        bytes.appendLittleEndian(UInt32(truncatingIfNeeded: payload.count))
        bytes.appendLittleEndian(kind)
        bytes.appendLittleEndian(UInt16(0))
        bytes.append(contentsOf: payload)
        return bytes
    }
}

/// Cuts a stream of bytes into frames, wherever it was cut before.
///
/// Holds a frame's bytes at most, and those of one `append`: call `next` until it has no more.
struct AgentFrameDecoder: Sendable {
    private let longest: Int
    private var bytes: [UInt8] = []
    /// The first byte of `bytes` that no frame has had.
    private var start = 0
    private var violation: AgentViolation?

    /// - Parameter longest: most bytes of a payload.
    init(longest: Int = AgentFrame.longestFromAgent) { self.longest = longest }

    /// Bytes that wait for the rest of their frame.
    var pendingCount: Int { bytes.count - start }

    mutating func append(_ more: some Sequence<UInt8>) {
        guard violation == nil else { return }
        if start > 0 {
            bytes.removeFirst(start)
            start = 0
        }
        bytes.append(contentsOf: more)
    }

    /// The next frame, or nil until more bytes come. After an error the stream has no meaning any more: it is thrown again.
    mutating func next() throws(AgentViolation) -> AgentFrame? {
        if let violation { throw violation }
        guard pendingCount >= AgentFrame.headerLength else { return nil }
        let length = bytes.littleEndian(UInt32.self, at: start)
        let kind = bytes.littleEndian(UInt16.self, at: start + 4)
        let reserved = bytes.littleEndian(UInt16.self, at: start + 6)
        guard length <= UInt32(clamping: longest) else { throw fail(.frameTooLong(kind: kind, length: length)) }
        guard reserved == 0 else { throw fail(.reservedBits(kind: kind)) }
        let end = start + AgentFrame.headerLength + Int(length)
        guard bytes.count >= end else { return nil }
        let payload = Array(bytes[(start + AgentFrame.headerLength)..<end])
        start = end
        return AgentFrame(kind: kind, payload: payload)
    }

    private mutating func fail(_ violation: AgentViolation) -> AgentViolation {
        self.violation = violation
        bytes = []
        start = 0
        return violation
    }
}

extension [UInt8] {
    mutating func appendLittleEndian<Integer: FixedWidthInteger & UnsignedInteger>(_ value: Integer) {
        for index in 0..<(Integer.bitWidth / 8) { append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }

    /// The integer whose first byte is at `offset`; all of its bytes are there.
    func littleEndian<Integer: FixedWidthInteger & UnsignedInteger>(_ type: Integer.Type, at offset: Int) -> Integer {
        var value: Integer = 0
        for index in 0..<(Integer.bitWidth / 8) { value |= Integer(self[offset + index]) << (8 * index) }
        return value
    }
}
