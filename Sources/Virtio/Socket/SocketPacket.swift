/// The header of every packet between a guest's sockets and the device's; stream data follows it.
///
/// ```
///  0        8        16       20       24       28    30    32       36         40        44
///  | src_cid | dst_cid | src_port | dst_port | len | type | op | flags | buf_alloc | fwd_cnt |
/// ```
/// All little-endian. Source: [VIRTIO1.2 §5.10.6].
struct SocketPacket: Hashable, Sendable, BitwiseCopyable {
    var sourceCID: UInt64
    var destinationCID: UInt64
    var sourcePort: UInt32
    var destinationPort: UInt32
    /// Bytes of data behind the header.
    var count: UInt32
    var type: UInt16
    /// One of `Operation`, or whatever else a guest writes there.
    var operation: UInt16
    var flags: UInt32
    /// buf_alloc: how many bytes the sender of this packet keeps for what it has not passed on.
    var bufAlloc: UInt32
    /// fwd_cnt: how many bytes the sender of this packet has passed on since the connection began; it wraps.
    var fwdCnt: UInt32

    static let byteCount: UInt64 = 44
    static let stream: UInt16 = 1
    /// The host's address. Source: [VIRTIO1.2 §5.10.4].
    static let hostCID: UInt64 = 2

    enum Operation: UInt16, CaseIterable {
        case request = 1
        case response = 2
        case reset = 3
        case shutdown = 4
        case data = 5
        case creditUpdate = 6
        case creditRequest = 7
    }

    /// The header's bytes as words, whatever alignment they come at.
    struct Wire: BitwiseCopyable {
        var words: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
        var last: UInt32 = 0
    }
}

extension SocketPacket {
    init(_ wire: Wire) {
        let (ports, kind, rest) = (
            UInt64(littleEndian: wire.words.2), UInt64(littleEndian: wire.words.3), UInt64(littleEndian: wire.words.4)
        )
        self.init(
            sourceCID: UInt64(littleEndian: wire.words.0), destinationCID: UInt64(littleEndian: wire.words.1),
            sourcePort: UInt32(truncatingIfNeeded: ports), destinationPort: UInt32(truncatingIfNeeded: ports >> 32),
            count: UInt32(truncatingIfNeeded: kind), type: UInt16(truncatingIfNeeded: kind >> 32),
            operation: UInt16(truncatingIfNeeded: kind >> 48), flags: UInt32(truncatingIfNeeded: rest),
            bufAlloc: UInt32(truncatingIfNeeded: rest >> 32), fwdCnt: UInt32(littleEndian: wire.last))
    }

    var wire: Wire {
        let ports = UInt64(sourcePort) | UInt64(destinationPort) << 32
        let kind = UInt64(count) | UInt64(type) << 32 | UInt64(operation) << 48
        return Wire(
            words: (
                sourceCID.littleEndian, destinationCID.littleEndian, ports.littleEndian, kind.littleEndian,
                (UInt64(flags) | UInt64(bufAlloc) << 32).littleEndian
            ), last: fwdCnt.littleEndian)
    }

    /// What says to the sender of this packet that it belongs to no connection.
    /// Source: [VIRTIO1.2 §5.10.6.5], [VIRTIO1.2 §5.10.6.2] for types that are unknown.
    var refusal: SocketPacket {
        SocketPacket(
            sourceCID: destinationCID, destinationCID: sourceCID, sourcePort: destinationPort, destinationPort: sourcePort,
            count: 0, type: type, operation: Operation.reset.rawValue, flags: 0, bufAlloc: 0, fwdCnt: 0)
    }

    /// Never answered by a reset: two sides would go on for ever.
    var isReset: Bool { operation == Operation.reset.rawValue }
}
