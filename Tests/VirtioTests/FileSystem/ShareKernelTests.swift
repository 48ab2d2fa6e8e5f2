import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// The host's own Linux as the guest: its FUSE client mounts the device, and programs work in it. What they do in a twin
/// directory has the same results. Needs root and /dev/fuse; without, there is nothing to mount with.
@Suite struct ShareKernelTests {
    static let isPossible = geteuid() == 0 && access("/dev/fuse", R_OK | W_OK) == 0

    /// A mount whose requests go to a device.
    private final class Mount {
        let path: String
        let rig: ShareRig
        private let fuse: Int32
        private(set) var requests: [UInt32: Int] = [:]

        init?(_ rig: ShareRig) {
            self.rig = rig
            path = rig.tree.root + "/mount"
            mkdir(path, 0o755)
            fuse = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC)
            guard fuse >= 0 else { return nil }
            let options = "fd=\(fuse),rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
            guard mount("share", path, "fuse", 0, options) == 0 else {
                close(fuse)
                return nil
            }
        }

        deinit {
            // Whoever still waits in there is let go.
            close(fuse)
            umount2(path, 2)
        }

        /// Runs a shell in the mount, and serves it until it ends.
        /// - Returns: its exit status; nil where it takes too long.
        func run(_ script: String, seconds: Int = 60) throws -> Int32? {
            let child = try #require(Mount.spawn(script, in: path))
            var status: Int32 = 0
            let end = time(nil) + seconds
            var buffer = [UInt8](repeating: 0, count: (1 << 20) + 8192)
            while waitpid(child, &status, WNOHANG) == 0 {
                guard time(nil) < end else {
                    kill(child, SIGKILL)
                    return nil
                }
                var ready = pollfd(fd: fuse, events: Int16(POLLIN), revents: 0)
                guard poll(&ready, 1, 5) > 0 else { continue }
                while true {
                    let count = read(fuse, &buffer, buffer.count)
                    guard count >= 40 else { break }
                    try serve(Array(buffer[..<count]))
                }
            }
            return status == 0 ? 0 : status >> 8 & 0xFF
        }

        static func spawn(_ script: String, in path: String) -> pid_t? {
            var child: pid_t = 0
            func pointers(_ words: [String]) -> [UnsafeMutablePointer<CChar>?] { words.map { strdup($0) } + [nil] }
            let words = pointers(["/bin/sh", "-c", "cd '\(path)' && umask 022 && \(script)"])
            let environment = pointers(["PATH=/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C"])
            defer { for word in words + environment { free(word) } }
            return posix_spawn(&child, "/bin/sh", nil, nil, words, environment) == 0 ? child : nil
        }

        private func serve(_ message: [UInt8]) throws {
            var cursor = Cursor(message)
            _ = cursor.next(UInt32.self)
            let opcode = cursor.next(UInt32.self)
            requests[opcode, default: 0] += 1
            var room = 8192
            switch opcode {
            // READ, READDIR, READDIRPLUS; extended attributes.
            case 15, 28, 44:
                cursor.place = 56
                room = Int(cursor.next(UInt32.self))
            case 22, 23:
                cursor.place = 40
                room = max(8, Int(cursor.next(UInt32.self)))
            case 2, 36, 42: room = 0
            default: break
            }
            guard let answer = try rig.client.forward(message, room: room, queue: room == 0 ? 0 : 1) else { return }
            // A request that was interrupted has gone meanwhile.
            _ = answer.withUnsafeBytes { write(fuse, $0.baseAddress, $0.count) }
        }
    }

    /// Runs the same in the mount and in the twin directory.
    private func compare(_ script: String, _ edit: (inout ShareOptions) -> Void = { _ in }, needs: [UInt32] = []) throws {
        let rig = try ShareRig(mounts: false, edit)
        guard let mount = Mount(rig) else { return }
        let here = try mount.run("exec 2>'\(rig.tree.root)/errors'; set -e; " + script)
        #expect(here == 0, "\(Tree.text(rig.tree.root + "/errors"))")
        let child = try #require(Mount.spawn("exec 2>/dev/null; set -e; " + script, in: rig.tree.twin))
        var status: Int32 = 0
        waitpid(child, &status, 0)
        #expect(status == 0)
        #expect(Tree.snapshot(rig.tree.share) == Tree.snapshot(rig.tree.twin))
        for opcode in needs { #expect(mount.requests[opcode] ?? 0 > 0, "request \(opcode)") }
        #expect(rig.client.statistic("openFiles") == 0)
    }

    @Test(.enabled(if: isPossible)) func files() throws {
        try compare(
            """
            mkdir -p a/b/c; echo hello > a/f; cat a/f > a/b/g; test "$(cat a/b/g)" = hello
            echo more >> a/f; test "$(wc -c < a/f)" = 11
            ln a/f a/hard; ln -s ../f a/b/soft; test "$(cat a/b/soft)" = "$(cat a/hard)"
            mv a/b/g a/b/c/moved; mv a/b a/d; chmod 4751 a/f; touch -d @1000000000 a/d/c/moved
            truncate -s 32M sparse; printf x | dd of=sparse bs=1 seek=30000000 conv=notrunc; test "$(du -k sparse | cut -f1)" -lt 1000
            cp --sparse=always sparse sparse2; cmp sparse sparse2; truncate -s 1000 sparse sparse2
            mkfifo pipe; (echo through > pipe &) ; test "$(cat pipe)" = through
            exec 3> gone; rm gone; echo still >&3; exec 3>&-
            ! rmdir a; ! mkdir a; ! cat nothing; ! ln a/f a/hard
            dd if=/dev/zero of=big bs=1M count=3; fallocate -p -o 4096 -l 8192 big; fallocate -l 100000 reserved
            sync big; df . ; stat . > /dev/null; rm sparse2
            """, needs: [1, 3, 4, 6, 9, 13, 14, 15, 16, 35, 43])
    }

    @Test(.enabled(if: isPossible), arguments: ShareCaching.allCases) func aTreeIsCopied(caching: ShareCaching) throws {
        try compare(
            """
            cp -r /usr/include/linux/netfilter tree; diff -r /usr/include/linux/netfilter tree
            find tree -name '*.h' | sort | head -100 | xargs cat | cksum > sum
            tar cf all.tar -C tree . --sort=name --mtime=@0 --owner=0 --group=0; mkdir out; tar xf all.tar -C out; diff -r tree out
            rm -r out; ls -R tree | wc -l > count; rm all.tar
            """, { $0.caching = caching; $0.descriptorLimit = 64 })
    }

    @Test(.enabled(if: isPossible && access("/usr/bin/git", X_OK) == 0)) func gitWorks() throws {
        try compare(
            """
            git init -q r; cd r; cp -r /usr/include/asm-generic .; git add .
            git -c user.name=n -c user.email=e commit -qm one; test -z "$(git status --porcelain)"
            echo x >> asm-generic/errno.h; test "$(git status --porcelain)" = ' M asm-generic/errno.h'
            git checkout -q .; git fsck --no-progress; git gc -q; cd ..; git clone -q r s; diff -r r/asm-generic s/asm-generic
            rm -rf r/.git s/.git
            """)
    }

    @Test(.enabled(if: isPossible && access("/usr/bin/python3", X_OK) == 0)) func mappedFilesAndLocks() throws {
        let script = """
            import mmap, os, fcntl
            with open('m', 'w+b') as f:
                f.truncate(100000)
                m = mmap.mmap(f.fileno(), 100000)
                m[50000:50005] = b'hello'
                m.flush()
                fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
                child = os.fork()
                if child == 0:
                    try:
                        fcntl.lockf(open('m', 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
                        os._exit(1)
                    except OSError:
                        os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            assert open('m', 'rb').read()[50000:50005] == b'hello'
            os.setxattr('m', 'user.test', b'v')
            assert os.getxattr('m', 'user.test') == b'v' and os.listxattr('m') == ['user.test']
            fd = os.open('m', os.O_RDWR)
            assert os.copy_file_range(fd, fd, 10, 50000, 0) == 10
            names = set()
            os.mkdir('d')
            for i in range(600): open('d/%d' % i, 'w').close()
            assert len(os.listdir('d')) == 600
            for e in os.scandir('d'): e.stat(); names.add(e.name)
            assert len(names) == 600
            for i in range(0, 600, 2): os.unlink('d/%d' % i)
            assert len(os.listdir('d')) == 300
            t = os.open('.', os.O_TMPFILE | os.O_RDWR)
            os.write(t, b'x')
            os.link('/proc/self/fd/%d' % t, 'linked', src_dir_fd=fd, follow_symlinks=True)
            os.utime('d', (5, 6))
            """
        for shares in [false, true] {
            try compare("python3 -c \"\(script)\"", { $0.sharesLocks = shares }, needs: shares ? [32, 47, 51] : [47, 51])
        }
    }
}
