internal import CHost
internal import Glibc

/// The files that the guest knows, by the numbers it knows them by.
///
/// A node is where its file was last found, parent and name, and which file that was. Most hold no descriptor: a file is
/// found again when it is needed, and what is then found must be the same one. Directories that are used, and open files,
/// have a descriptor as long as there is room; those whose name the guest has removed keep theirs. So what a guest can make
/// the host hold open has a bound that does not depend on how many files it knows.
///
/// A number is the slot and the slot's generation: one that was forgotten names nothing. Not synchronised.
struct NodeTable {
    private static let rootSlot = 1

    struct Node {
        var generation: UInt32 = 0
        var isUsed = false
        var identity = FileIdentity(device: 0, inode: 0)
        var birth: UInt64 = 0
        /// S_IFMT.
        var kind: UInt32 = 0
        /// How often the guest was told of it and has not forgotten it.
        var lookups: UInt64 = 0
        var parent: UInt64 = 0
        var name = FileName.none
        var descriptor: OpenDescriptor?
        /// It has no name any more, or none that we know: the descriptor stays.
        var isPinned = false
        /// Of the file system that it is on.
        var home = FileSystemKind.local
        /// It belongs to the host's kernel.
        var isBarred: Bool { home == .kernels }
        var stamp = FileStamp()
        // Neighbours among the descriptors that may be closed: 0 for none.
        var newer: UInt32 = 0
        var older: UInt32 = 0
    }

    private var nodes: [Node]
    private var free: [UInt32] = []
    private var slots: [FileIdentity: UInt32] = [:]
    private var newest: UInt32 = 0
    private var oldest: UInt32 = 0
    private var cached = 0
    private var pinned = 0
    private let nodeLimit: Int
    private let placeLimit: Int
    /// Devices by their place here, so that inode numbers of different ones differ.
    private var devices: [UInt64]

    init(
        root: OpenDescriptor, _ attributes: chost_file_attributes, home: FileSystemKind, nodeLimit: Int, placeLimit: Int
    ) {
        self.nodeLimit = max(2, min(nodeLimit, 1 << 28))
        self.placeLimit = max(2, placeLimit)
        var node = Node()
        node.isUsed = true
        node.identity = attributes.identity
        node.birth = attributes.birth
        node.kind = attributes.kind
        node.lookups = 1
        node.home = home
        node.descriptor = root
        nodes = [Node(), node]
        slots[node.identity] = UInt32(Self.rootSlot)
        devices = [attributes.device]
    }

    /// Nodes that the guest knows, the root among them.
    var count: Int { nodes.count - 1 - free.count }
    /// Descriptors held for nodes.
    var descriptorCount: Int { cached + pinned }

    // MARK: Finding

    private func slot(_ number: UInt64) -> Int? {
        let index = Int(UInt32(truncatingIfNeeded: number))
        guard index < nodes.count, nodes[index].isUsed, nodes[index].generation == UInt32(truncatingIfNeeded: number >> 32)
        else { return nil }
        return index
    }

    private func number(_ slot: Int) -> UInt64 { UInt64(nodes[slot].generation) << 32 | UInt64(slot) }

    func node(_ number: UInt64) throws(FileError) -> Node {
        guard let slot = slot(number) else { throw .stale }
        return nodes[slot]
    }

    /// The node's descriptor, where it has one.
    mutating func descriptor(_ number: UInt64) -> OpenDescriptor? {
        guard let slot = slot(number), let descriptor = nodes[slot].descriptor else { return nil }
        if slot != Self.rootSlot, !nodes[slot].isPinned, newest != UInt32(slot) {
            unlink(slot)
            linkNewest(slot)
        }
        return descriptor
    }

    /// Whether calls for a node end by themselves; also for one that is none, for which none are made.
    func isLocal(_ number: UInt64) -> Bool { slot(number).map { nodes[$0].home != .remote } ?? true }

    /// The number of a file that the guest knows.
    func number(of identity: FileIdentity) -> UInt64? { slots[identity].map { number(Int($0)) } }

    /// The inode number that the guest is shown: the host's, and for other file systems than the root's, changed to be another.
    mutating func shownInode(_ identity: FileIdentity) -> UInt64 {
        if identity.device == devices[0] { return identity.inode }
        var place = devices.firstIndex(of: identity.device)
        if place == nil, devices.count < 4096 {
            devices.append(identity.device)
            place = devices.count - 1
        }
        let high = UInt64(truncatingIfNeeded: place ?? 4096) << 48
        return identity.inode & ((1 << 48) - 1) ^ identity.inode >> 48 ^ high
    }

    // MARK: Telling the guest

    /// A file was found at a place, and the guest is told of it once more.
    /// - Returns: its number.
    mutating func remember(
        _ found: chost_file_attributes, parent: UInt64, name: FileName, home: FileSystemKind
    ) throws(FileError) -> UInt64 {
        if let index = slots[found.identity] {
            let slot = Int(index)
            let isSame = nodes[slot].kind == found.kind && nodes[slot].birth == found.birth
            // One that is held open is itself, whatever it says: an overlay's file is born anew when it is first written.
            if isSame || nodes[slot].descriptor != nil && nodes[slot].kind == found.kind {
                nodes[slot].lookups &+= 1
                nodes[slot].birth = found.birth
                if slot != Self.rootSlot, !name.isNone { place(slot, parent, name) }
                return number(slot)
            }
        }
        let slot: Int
        if let index = free.popLast() {
            slot = Int(index)
        } else {
            guard nodes.count <= nodeLimit else { throw .tooManyFiles }
            nodes.append(Node())
            slot = nodes.count - 1
        }
        var node = Node()
        node.generation = nodes[slot].generation
        node.isUsed = true
        node.identity = found.identity
        node.birth = found.birth
        node.kind = found.kind
        node.lookups = 1
        node.parent = parent
        node.name = name
        node.home = home
        nodes[slot] = node
        slots[found.identity] = UInt32(slot)
        return number(slot)
    }

    /// The guest forgets. A count that is more than it was told takes all of it, and no more.
    /// - Returns: a descriptor that is to be closed, without the lock.
    mutating func forget(_ number: UInt64, _ count: UInt64) -> OpenDescriptor? {
        guard let slot = slot(number), slot != Self.rootSlot else { return nil }
        nodes[slot].lookups -= min(count, nodes[slot].lookups)
        guard nodes[slot].lookups == 0 else { return nil }
        let descriptor = detach(slot)
        let identity = nodes[slot].identity
        if slots[identity] == UInt32(slot) { slots[identity] = nil }
        let generation = nodes[slot].generation &+ 1
        nodes[slot] = Node()
        nodes[slot].generation = generation
        free.append(UInt32(slot))
        return descriptor
    }

    // MARK: Places

    private mutating func place(_ slot: Int, _ parent: UInt64, _ name: FileName) {
        nodes[slot].parent = parent
        nodes[slot].name = name
        guard nodes[slot].isPinned else { return }
        nodes[slot].isPinned = false
        pinned -= 1
        cached += 1
        linkNewest(slot)
    }

    /// A file has gone to another place.
    mutating func moved(_ identity: FileIdentity, parent: UInt64, name: FileName) {
        guard let index = slots[identity], index != UInt32(Self.rootSlot) else { return }
        place(Int(index), parent, name)
    }

    /// The guest has removed a name. Where it was the one that we know, the descriptor is all that the file has.
    mutating func removed(_ identity: FileIdentity, parent: UInt64, name: FileName) {
        guard let index = slots[identity] else { return }
        let slot = Int(index)
        guard slot != Self.rootSlot, nodes[slot].parent == parent, nodes[slot].name == name else { return }
        nodes[slot].name = .none
        pin(slot)
    }

    /// A file without a name that was never to have one.
    mutating func keepOpen(_ number: UInt64) { if let slot = slot(number) { pin(slot) } }

    private mutating func pin(_ slot: Int) {
        // Half of the room is left for what can be found again. What does not fit is gone when it is closed.
        guard nodes[slot].descriptor != nil, !nodes[slot].isPinned, pinned < placeLimit / 2 else { return }
        unlink(slot)
        nodes[slot].isPinned = true
        cached -= 1
        pinned += 1
    }

    mutating func setStamp(_ number: UInt64, _ stamp: FileStamp) { if let slot = slot(number) { nodes[slot].stamp = stamp } }

    // MARK: Descriptors

    /// Keeps a descriptor for a node.
    /// - Returns: one that is to be closed for it, without the lock.
    mutating func attach(_ descriptor: OpenDescriptor, to number: UInt64) -> OpenDescriptor? {
        guard let slot = slot(number), nodes[slot].descriptor == nil else { return nil }
        let evicted = cached + pinned >= placeLimit ? evictOldest() : nil
        guard cached + pinned < placeLimit else { return evicted }
        nodes[slot].descriptor = descriptor
        cached += 1
        linkNewest(slot)
        return evicted
    }

    private mutating func evictOldest() -> OpenDescriptor? { oldest == 0 ? nil : detach(Int(oldest)) }

    /// Gives up all that can be found again.
    /// - Returns: what is to be closed, without the lock.
    mutating func evictAll() -> [OpenDescriptor] {
        var evicted: [OpenDescriptor] = []
        while let descriptor = evictOldest() { evicted.append(descriptor) }
        return evicted
    }

    private mutating func detach(_ slot: Int) -> OpenDescriptor? {
        guard let descriptor = nodes[slot].descriptor else { return nil }
        nodes[slot].descriptor = nil
        if nodes[slot].isPinned {
            nodes[slot].isPinned = false
            pinned -= 1
        } else {
            unlink(slot)
            cached -= 1
        }
        return descriptor
    }

    private mutating func linkNewest(_ slot: Int) {
        nodes[slot].newer = 0
        nodes[slot].older = newest
        if newest != 0 { nodes[Int(newest)].newer = UInt32(slot) }
        newest = UInt32(slot)
        if oldest == 0 { oldest = newest }
    }

    private mutating func unlink(_ slot: Int) {
        let (newer, older) = (nodes[slot].newer, nodes[slot].older)
        if newer != 0 { nodes[Int(newer)].older = older } else { newest = older }
        if older != 0 { nodes[Int(older)].newer = newer } else { oldest = newer }
        nodes[slot].newer = 0
        nodes[slot].older = 0
    }
}
