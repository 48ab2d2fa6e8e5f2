/// How code bytes are read: the D and L bits of the code segment, or real mode.
///
/// Real and virtual-8086 mode are `.bits16` (or `.bits32` where a segment's cached D bit says so). Which of the two
/// applies decides a few more cases of #UD, such as VEX prefixes and `ARLP`; they are the executing CPU's to raise:
/// see `RowID.needsProtectedMode`.
public enum CodeMode: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case bits16
    case bits32
    case bits64
}

/// Why bytes are no instruction.
public enum DecodeError: UInt8, Error, Sendable, BitwiseCopyable {
    /// The instruction goes on after the last byte given. On a CPU: fetch more, which may fault.
    case truncated
    /// Raises #UD, whatever follows.
    case undefined
    /// Longer than 15 bytes. Raises #GP(0).
    case tooLong
}
