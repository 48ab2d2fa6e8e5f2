internal import CHost
internal import Glibc
internal import Synchronization

/// The FUSE server of one session: what the guest knows and has open in a shared directory.
///
/// Any number of workers call `perform` at once. Calls to the host are made without a lock but for the reading of a directory.
///
/// Source: [FUSE].
final class FileServer: Sendable {
    let shared: SharedDirectory
    let nodes: Mutex<NodeTable>
    let handles: Mutex<HandleTable>
    let counters: FileCounters
    private let nodeLimit: Int
    private let isReady = Atomic<Bool>(false)

    /// Most bytes of one transfer.
    static let mostBytes: UInt64 = 1 << 20
    /// Pages of 4 KiB in that.
    static let mostPages: UInt16 = 256
    /// The oldest version that is spoken: virtio-fs came with 7.31.
    static let oldestMinor: UInt32 = 27
    static let newestMinor: UInt32 = 38
    /// Most nodes that one BATCH_FORGET names.
    static let mostForgotten = 65_536
    /// And where it may not take its time.
    private static let mostForgottenAtOnce = 256

    /// - Parameter nodeLimit: how many files the guest may know at once.
    init(_ shared: SharedDirectory, _ counters: FileCounters, nodeLimit: Int) {
        self.shared = shared
        self.counters = counters
        self.nodeLimit = nodeLimit
        nodes = Mutex(Self.makeNodes(shared, nodeLimit))
        handles = Mutex(HandleTable(limit: shared.handleLimit))
    }

    private static func makeNodes(_ shared: SharedDirectory, _ limit: Int) -> NodeTable {
        NodeTable(
            root: shared.root, shared.rootAttributes, home: shared.kind, nodeLimit: limit, placeLimit: shared.placeLimit)
    }

    var openFiles: Int { handles.withLock { $0.count } }
    var inodes: Int { nodes.withLock { $0.count } }
    var descriptors: Int { nodes.withLock { $0.descriptorCount } }

    // MARK: Requests

    /// Does what a request asks for.
    ///
    /// - Parameter mayWait: for whatever the host takes; else only what ends by itself and soon is done, at the most a disk's
    ///   access away. Threads that may not wait need no file mode creation mask of their own.
    /// - Returns: false where it would have had to wait: nothing was done, and it is to be performed again.
    func perform(_ request: FileRequest, _ scratch: FileScratch, mayWait: Bool) -> Bool {
        request.outcome = .answered
        request.written = 0
        request.touched = 0
        let chain = request.chain
        guard let header = chain.load(FUSERequestHeader.self, at: 0) else {
            // Whose it is cannot be told.
            counters.requests.wrappingAdd(1, ordering: .relaxed)
            counters.errors.wrappingAdd(1, ordering: .relaxed)
            return true
        }
        request.unique = header.unique
        let opcode = FUSEOpcode(rawValue: header.opcode)
        if !mayWait, let opcode, !opcode.isBrief || !nodes.withLock({ $0.isLocal(header.node) }) { return false }
        do throws(FileError) {
            guard UInt64(header.length) >= FUSERequestHeader.byteCount, UInt64(header.length) <= chain.readableBytes
            else { throw .invalid }
            guard let opcode else { throw FileError(ENOSYS) }
            try dispatch(opcode, FileCall(request: request, header: header, scratch: scratch, mayWait: mayWait))
        } catch {
            if error == .wouldWait { return false }
            switch error.code {
            case ENOENT, ENODATA, ENOSYS: break
            default: counters.errors.wrappingAdd(1, ordering: .relaxed)
            }
            // Above are numbers of the host kernel's own, which a guest takes for nonsense.
            if opcode?.isSilent != true { request.answer(error: error.code < 512 ? error.code : EIO) }
        }
        counters.requests.wrappingAdd(1, ordering: .relaxed)
        return true
    }

    private func dispatch(_ opcode: FUSEOpcode, _ call: FileCall) throws(FileError) {
        guard isReady.load(ordering: .acquiring) || opcode == .initialize else { throw FileError(EIO) }
        switch opcode {
        case .initialize: try initialize(call)
        case .destroy:
            clear()
            call.answerEmpty()
        case .forget: try forget(call)
        case .batchForget: try batchForget(call)
        case .interrupt: call.request.outcome = .interrupts(try call.argument(UInt64.self))

        case .lookup: try lookUp(call)
        case .getAttributes: try getAttributes(call)
        case .setAttributes: try setAttributes(call)
        case .readLink: try readLink(call)
        case .symbolicLink: try makeSymbolicLink(call)
        case .makeNode: try makeNode(call)
        case .makeDirectory: try makeDirectory(call)
        case .unlink: try remove(call, isDirectory: false)
        case .removeDirectory: try remove(call, isDirectory: true)
        case .rename: try rename(call, extended: false)
        case .rename2: try rename(call, extended: true)
        case .link: try makeHardLink(call)
        case .statFileSystem: try statFileSystem(call)

        case .open: try open(call)
        case .create: try create(call)
        case .temporaryFile: try makeTemporaryFile(call)
        case .read: try read(call)
        case .write: try write(call)
        case .flush: try flush(call)
        case .release, .releaseDirectory: try release(call)
        case .sync, .syncDirectory: try sync(call)
        case .syncFileSystem: try syncFileSystem(call)
        case .allocate: try allocate(call)
        case .seek: try seek(call)
        case .copyRange: try copyRange(call)

        case .openDirectory: try openDirectory(call)
        case .readDirectory: try readDirectory(call, withEntries: false)
        case .readDirectoryPlus: try readDirectory(call, withEntries: true)

        case .setExtendedAttribute: try setExtendedAttribute(call)
        case .getExtendedAttribute: try getExtendedAttribute(call)
        case .listExtendedAttributes: try listExtendedAttributes(call)
        case .removeExtendedAttribute: try removeExtendedAttribute(call)

        case .getLock: try getLock(call)
        case .setLock: try setLock(call, waits: false)
        case .setLockWaiting: try setLock(call, waits: true)
        // The guest's kernel checks permissions by what the attributes say.
        case .access: throw FileError(ENOSYS)
        }
    }

    // MARK: The session

    private func initialize(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSEInit.self)
        try call.needsRoom(MemoryLayout<FUSEInitAnswer>.size)
        var answer = FUSEInitAnswer()
        answer.minor = Self.newestMinor
        // A newer guest asks again, in the version that it is told.
        guard wanted.major <= 7 else { return try call.answer(answer) }
        guard wanted.major == 7, wanted.minor >= Self.oldestMinor else { throw FileError(EPROTO) }
        answer.minor = min(wanted.minor, Self.newestMinor)
        let offered = FUSEFlags(rawValue: UInt64(wanted.flags))
        var taken: FUSEFlags = [
            .asyncRead, .atomicTruncate, .bigWrites, .readDirectoryPlus, .readDirectoryPlusAuto, .parallelDirectories,
            .mostPages, .killsPrivileges, .extended,
        ]
        if shared.options.sharesLocks { taken.formUnion(.posixLocks) }
        if shared.options.caching != .none { taken.formUnion([.checksDataOnChange, .cachesLinks]) }
        taken.formIntersection(offered)
        answer.flags = UInt32(truncatingIfNeeded: taken.rawValue)
        answer.readAhead = min(wanted.readAhead, UInt32(Self.mostBytes))
        answer.mostBackground = 64
        answer.congestion = 48
        // Without the flag the guest makes no longer ones than 32 pages.
        answer.mostWritten = UInt32(taken.contains(.mostPages) ? Self.mostBytes : 128 << 10)
        answer.timeGranularity = 1
        answer.mostPages = taken.contains(.mostPages) ? Self.mostPages : 0
        clear()
        isReady.store(true, ordering: .releasing)
        try call.answer(answer)
    }

    /// Forgets all that the guest knew.
    private func clear() {
        isReady.store(false, ordering: .releasing)
        // What closes with them closes without the locks.
        let oldNodes = nodes.withLock { nodes in
            let old = nodes
            nodes = Self.makeNodes(shared, nodeLimit)
            return old
        }
        let oldHandles = handles.withLock { handles in
            let old = handles
            handles = HandleTable(limit: shared.handleLimit)
            return old
        }
        withExtendedLifetime((oldNodes, oldHandles)) {}
    }

    private func forget(_ call: FileCall) throws(FileError) {
        let count = try call.argument(UInt64.self)
        _ = nodes.withLock { $0.forget(call.header.node, count) }
    }

    private func batchForget(_ call: FileCall) throws(FileError) {
        let count = try call.argument(UInt32.self)
        let entrySize = MemoryLayout<FUSEForgetOne>.size
        let held = (call.argumentBytes - min(8, call.argumentBytes)) / UInt64(entrySize)
        var rest = Int(min(UInt64(count), UInt64(Self.mostForgotten), held))
        guard call.mayWait || rest <= Self.mostForgottenAtOnce else { throw .wouldWait }
        var offset: UInt64 = 8
        var closing: [OpenDescriptor] = []
        while rest > 0 {
            let bytes = unsafe call.copyArguments(from: offset, count: min(rest, 1024) * entrySize)
            let got = bytes.count / entrySize
            guard got > 0 else { break }
            nodes.withLock { nodes in
                for index in 0..<got {
                    let one = unsafe bytes.loadUnaligned(fromByteOffset: index * entrySize, as: FUSEForgetOne.self)
                    if let closed = nodes.forget(one.node, one.count) { closing.append(closed) }
                }
            }
            closing.removeAll(keepingCapacity: true)
            rest -= got
            offset &+= UInt64(got * entrySize)
        }
    }
}

/// What a share has done, through all sessions.
final class FileCounters: Sendable {
    let requests = Atomic<UInt64>(0)
    let bytesRead = Atomic<UInt64>(0)
    let bytesWritten = Atomic<UInt64>(0)
    /// Answers with an error, but for those that a name or attribute is not there, or a request is not known.
    let errors = Atomic<UInt64>(0)
}
