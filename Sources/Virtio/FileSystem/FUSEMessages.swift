/// Requests and answers as they lie in the guest's memory: little-endian, without padding that is not named.
///
/// Source: [FUSE], from protocol version 7.31 on; the fields that later versions added lie where earlier ones had none.

struct FUSERequestHeader: BitwiseCopyable {
    var length: UInt32 = 0
    var opcode: UInt32 = 0
    var unique: UInt64 = 0
    var node: UInt64 = 0
    var user: UInt32 = 0
    var group: UInt32 = 0
    var process: UInt32 = 0
    var extensions: UInt32 = 0

    static let byteCount: UInt64 = 40
}

struct FUSEAnswerHeader: BitwiseCopyable {
    var length: UInt32
    /// 0 or a negative errno.
    var error: Int32
    var unique: UInt64

    static let byteCount: UInt64 = 16
}

struct FUSEAttributes: BitwiseCopyable {
    var inode: UInt64 = 0
    var size: UInt64 = 0
    var blocks: UInt64 = 0
    var accessed: UInt64 = 0
    var modified: UInt64 = 0
    var changed: UInt64 = 0
    var accessedNanoseconds: UInt32 = 0
    var modifiedNanoseconds: UInt32 = 0
    var changedNanoseconds: UInt32 = 0
    var mode: UInt32 = 0
    var links: UInt32 = 0
    var user: UInt32 = 0
    var group: UInt32 = 0
    var rawDevice: UInt32 = 0
    var blockSize: UInt32 = 0
    var flags: UInt32 = 0
}

struct FUSEEntry: BitwiseCopyable {
    var node: UInt64 = 0
    var generation: UInt64 = 0
    var entryValid: UInt64 = 0
    var attributesValid: UInt64 = 0
    var entryValidNanoseconds: UInt32 = 0
    var attributesValidNanoseconds: UInt32 = 0
    var attributes = FUSEAttributes()
}

struct FUSEAttributesAnswer: BitwiseCopyable {
    var valid: UInt64
    var validNanoseconds: UInt32
    var reserved: UInt32 = 0
    var attributes: FUSEAttributes
}

struct FUSEInit: BitwiseCopyable {
    var major: UInt32
    var minor: UInt32
    var readAhead: UInt32
    var flags: UInt32
}

struct FUSEInitAnswer: BitwiseCopyable {
    var major: UInt32 = 7
    var minor: UInt32 = 0
    var readAhead: UInt32 = 0
    var flags: UInt32 = 0
    var mostBackground: UInt16 = 0
    var congestion: UInt16 = 0
    var mostWritten: UInt32 = 0
    var timeGranularity: UInt32 = 0
    var mostPages: UInt16 = 0
    var mapAlignment: UInt16 = 0
    var flags2: UInt32 = 0
    var unused: (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0, 0, 0, 0)
}

struct FUSEForgetOne: BitwiseCopyable {
    var node: UInt64
    var count: UInt64
}

struct FUSEGetAttributes: BitwiseCopyable {
    var flags: UInt32
    var reserved: UInt32
    var handle: UInt64
}

struct FUSESetAttributes: BitwiseCopyable {
    var valid: UInt32
    var reserved: UInt32
    var handle: UInt64
    var size: UInt64
    var lockOwner: UInt64
    var accessed: UInt64
    var modified: UInt64
    var changed: UInt64
    var accessedNanoseconds: UInt32
    var modifiedNanoseconds: UInt32
    var changedNanoseconds: UInt32
    var mode: UInt32
    var unused: UInt32
    var user: UInt32
    var group: UInt32
    var unused2: UInt32
}

struct FUSEMakeNode: BitwiseCopyable {
    var mode: UInt32
    var rawDevice: UInt32
    var mask: UInt32
    var reserved: UInt32
}

struct FUSEMakeDirectory: BitwiseCopyable {
    var mode: UInt32
    var mask: UInt32
}

struct FUSERename2: BitwiseCopyable {
    var directory: UInt64
    var flags: UInt32
    var reserved: UInt32
}

struct FUSEOpen: BitwiseCopyable {
    var flags: UInt32
    var openFlags: UInt32
}

struct FUSECreate: BitwiseCopyable {
    var flags: UInt32
    var mode: UInt32
    var mask: UInt32
    var openFlags: UInt32
}

struct FUSEOpenAnswer: BitwiseCopyable {
    var handle: UInt64
    var flags: UInt32
    var reserved: UInt32 = 0
}

struct FUSECreateAnswer: BitwiseCopyable {
    var entry: FUSEEntry
    var opened: FUSEOpenAnswer
}

struct FUSERelease: BitwiseCopyable {
    var handle: UInt64
    var flags: UInt32
    var releaseFlags: UInt32
    var lockOwner: UInt64
}

struct FUSEFlush: BitwiseCopyable {
    var handle: UInt64
    var unused: UInt64
    var lockOwner: UInt64
}

/// READ, READDIR, WRITE.
struct FUSETransfer: BitwiseCopyable {
    var handle: UInt64
    var offset: UInt64
    var size: UInt32
    var transferFlags: UInt32
    var lockOwner: UInt64
    var flags: UInt32
    var reserved: UInt32

    static let byteCount: UInt64 = 40
}

struct FUSECount: BitwiseCopyable {
    var size: UInt32
    var reserved: UInt32 = 0
}

struct FUSESpace: BitwiseCopyable {
    var blocks: UInt64
    var free: UInt64
    var available: UInt64
    var files: UInt64
    var freeFiles: UInt64
    var blockSize: UInt32
    var nameLength: UInt32
    var fragmentSize: UInt32
    var reserved: UInt32 = 0
    var spare: (UInt64, UInt64, UInt64) = (0, 0, 0)
}

struct FUSESync: BitwiseCopyable {
    var handle: UInt64
    var flags: UInt32
    var reserved: UInt32
}

struct FUSESetExtendedAttribute: BitwiseCopyable {
    var size: UInt32
    var flags: UInt32
}

struct FUSELock: BitwiseCopyable {
    var start: UInt64
    var end: UInt64
    var type: UInt32
    var process: UInt32
}

struct FUSELockRequest: BitwiseCopyable {
    var handle: UInt64
    var owner: UInt64
    var lock: FUSELock
    var flags: UInt32
    var reserved: UInt32
}

struct FUSEAllocate: BitwiseCopyable {
    var handle: UInt64
    var offset: UInt64
    var length: UInt64
    var mode: UInt32
    var reserved: UInt32
}

struct FUSESeek: BitwiseCopyable {
    var handle: UInt64
    var offset: UInt64
    var whence: UInt32
    var reserved: UInt32
}

struct FUSECopyRange: BitwiseCopyable {
    var handle: UInt64
    var offset: UInt64
    var targetNode: UInt64
    var targetHandle: UInt64
    var targetOffset: UInt64
    var length: UInt64
    var flags: UInt64
}

/// What comes before the name of a directory's entry.
struct FUSEDirectoryEntry: BitwiseCopyable {
    var inode: UInt64
    var offset: UInt64
    var nameLength: UInt32
    var type: UInt32

    static let byteCount = 24
    /// With the entry before it, as READDIRPLUS has it.
    static let byteCountPlus = 152
}
