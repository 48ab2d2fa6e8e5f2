internal import VMCore

/// The fields of a payload that came from the agent, cut apart.
struct AgentFields: Sendable {
    private let kind: UInt16
    private let payload: [UInt8]
    private var ranges: [(tag: UInt16, range: Range<Int>)] = []

    static let headerLength = 8

    /// Characters.
    private static let longestText = 512

    init(_ frame: AgentFrame) throws(AgentViolation) {
        kind = frame.kind
        payload = frame.payload
        var offset = 0
        while offset < payload.count {
            guard payload.count - offset >= Self.headerLength else { throw .brokenField(kind: kind) }
            let tag = payload.littleEndian(UInt16.self, at: offset)
            let reserved = payload.littleEndian(UInt16.self, at: offset + 2)
            let length = payload.littleEndian(UInt32.self, at: offset + 4)
            offset += Self.headerLength
            guard reserved == 0, UInt64(length) <= UInt64(payload.count - offset) else { throw .brokenField(kind: kind) }
            ranges.append((tag, offset..<(offset + Int(length))))
            offset += Int(length)
        }
    }

    /// The first field with this tag; nil where there is none.
    func bytes(_ tag: UInt16) -> ArraySlice<UInt8>? {
        ranges.first { $0.tag == tag }.map { payload[$0.range] }
    }

    func all(_ tag: UInt16) -> [ArraySlice<UInt8>] { ranges.filter { $0.tag == tag }.map { payload[$0.range] } }

    func integerIfPresent(_ tag: UInt16) throws(AgentViolation) -> UInt32? {
        guard let bytes = bytes(tag) else { return nil }
        guard bytes.count == 4 else { throw .badField(kind: kind, tag: tag) }
        return payload.littleEndian(UInt32.self, at: bytes.startIndex)
    }

    func integer(_ tag: UInt16) throws(AgentViolation) -> UInt32 {
        guard let value = try integerIfPresent(tag) else { throw .missingField(kind: kind, tag: tag) }
        return value
    }

    /// A text that a terminal may be shown; nil where there is none.
    func textIfPresent(_ tag: UInt16) -> String? { bytes(tag).map { PlainText.line($0, limit: Self.longestText) } }

    func text(_ tag: UInt16) throws(AgentViolation) -> String {
        guard let text = textIfPresent(tag) else { throw .missingField(kind: kind, tag: tag) }
        return text
    }
}

/// Puts a payload's fields together.
struct AgentFieldWriter: Sendable {
    private(set) var payload: [UInt8] = []

    mutating func add(_ tag: UInt16, _ bytes: some Collection<UInt8>) {
        payload.appendLittleEndian(tag)
        payload.appendLittleEndian(UInt16(0))
        payload.appendLittleEndian(UInt32(clamping: bytes.count))
        payload.append(contentsOf: bytes)
    }

    mutating func add(_ tag: UInt16, _ value: UInt32) { add(tag, values: value) }

    mutating func add(_ tag: UInt16, values: UInt32..., text: String = "") {
        var bytes: [UInt8] = []
        for value in values { bytes.appendLittleEndian(value) }
        bytes.append(contentsOf: text.utf8)
        add(tag, bytes)
    }

    mutating func add(_ tag: UInt16, _ text: String) { add(tag, text.utf8) }
}
