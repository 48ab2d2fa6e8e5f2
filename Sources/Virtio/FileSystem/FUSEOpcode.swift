/// What a request asks for. Source: [FUSE] enum fuse_opcode.
enum FUSEOpcode: UInt32 {
    case lookup = 1
    case forget = 2
    case getAttributes = 3
    case setAttributes = 4
    case readLink = 5
    case symbolicLink = 6
    case makeNode = 8
    case makeDirectory = 9
    case unlink = 10
    case removeDirectory = 11
    case rename = 12
    case link = 13
    case open = 14
    case read = 15
    case write = 16
    case statFileSystem = 17
    case release = 18
    case sync = 20
    case setExtendedAttribute = 21
    case getExtendedAttribute = 22
    case listExtendedAttributes = 23
    case removeExtendedAttribute = 24
    case flush = 25
    case initialize = 26
    case openDirectory = 27
    case readDirectory = 28
    case releaseDirectory = 29
    case syncDirectory = 30
    case getLock = 31
    case setLock = 32
    case setLockWaiting = 33
    case access = 34
    case create = 35
    case interrupt = 36
    case destroy = 38
    case batchForget = 42
    case allocate = 43
    case readDirectoryPlus = 44
    case rename2 = 45
    case seek = 46
    case copyRange = 47
    case syncFileSystem = 50
    case temporaryFile = 51

    /// Whether it may be done without waiting, where the file system is the host's own: it changes nothing on the host, needs no
    /// file mode creation mask, and takes no longer than a look at a disk.
    var isBrief: Bool {
        switch self {
        case .lookup, .forget, .batchForget, .interrupt, .getAttributes, .readLink, .open, .read, .flush, .release, .openDirectory,
            .readDirectory, .readDirectoryPlus, .releaseDirectory, .statFileSystem, .getExtendedAttribute,
            .listExtendedAttributes, .access:
            true
        default: false
        }
    }

    /// Whether the guest expects no answer.
    var isSilent: Bool { self == .forget || self == .batchForget || self == .interrupt }
}

/// What both sides say they can do, at INIT; the upper half is `flags2`. Source: [FUSE].
struct FUSEFlags: OptionSet, BitwiseCopyable {
    let rawValue: UInt64

    static let asyncRead = FUSEFlags(rawValue: 1 << 0)
    static let posixLocks = FUSEFlags(rawValue: 1 << 1)
    static let atomicTruncate = FUSEFlags(rawValue: 1 << 3)
    static let bigWrites = FUSEFlags(rawValue: 1 << 5)
    static let checksDataOnChange = FUSEFlags(rawValue: 1 << 12)
    static let readDirectoryPlus = FUSEFlags(rawValue: 1 << 13)
    static let readDirectoryPlusAuto = FUSEFlags(rawValue: 1 << 14)
    static let parallelDirectories = FUSEFlags(rawValue: 1 << 18)
    static let mostPages = FUSEFlags(rawValue: 1 << 22)
    static let cachesLinks = FUSEFlags(rawValue: 1 << 23)
    static let killsPrivileges = FUSEFlags(rawValue: 1 << 28)
    /// `flags2` is there.
    static let extended = FUSEFlags(rawValue: 1 << 30)
}

/// Bits of single requests and answers. Source: [FUSE].
enum FUSEBits {
    static let getAttributesOfHandle: UInt32 = 1
    static let openKeepsCache: UInt32 = 1 << 1
    static let openIsDirect: UInt32 = 1
    static let openCachesDirectory: UInt32 = 1 << 3
    static let openWithoutFlush: UInt32 = 1 << 5
    /// In OPEN and CREATE: take set-user-ID away.
    static let openKillsPrivileges: UInt32 = 1
    static let writeKillsPrivileges: UInt32 = 1 << 2
    static let syncDataOnly: UInt32 = 1
    static let lockIsFlock: UInt32 = 1

    static let setMode: UInt32 = 1 << 0
    static let setUser: UInt32 = 1 << 1
    static let setGroup: UInt32 = 1 << 2
    static let setSize: UInt32 = 1 << 3
    static let setAccessed: UInt32 = 1 << 4
    static let setModified: UInt32 = 1 << 5
    static let setByHandle: UInt32 = 1 << 6
    static let setAccessedNow: UInt32 = 1 << 7
    static let setModifiedNow: UInt32 = 1 << 8
    static let setKillsPrivileges: UInt32 = 1 << 11
}
