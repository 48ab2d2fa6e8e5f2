import Glibc
import Synchronization

/// A thread beside a vCPU's, and the time limit of both.
final class TestWriter {
    private var handle = pthread_t()
    private let isDone = Box()

    private final class Box: Sendable { let value = Atomic<Bool>(false) }
    private final class Body {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }

    /// - Parameter onTimeout: called again and again from ten seconds on, until `join`.
    init(_ body: @escaping @Sendable () -> Void, onTimeout: @escaping @Sendable () -> Void) {
        let done = isDone
        let boxed = Unmanaged.passRetained(Body {
            body()
            var left = 10_000
            while !done.value.load(ordering: .acquiring) {
                usleep(1000)
                left -= 1
                if left <= 0 { onTimeout() }
            }
        }).toOpaque()
        let result = pthread_create(&handle, nil, { argument in
            if let argument { Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run() }
            return nil
        }, boxed)
        precondition(result == 0)
    }

    func join() {
        isDone.value.store(true, ordering: .releasing)
        pthread_join(handle, nil)
    }
}

/// Something that takes a little time and is not optimised away.
func passTime() -> Int32 { getppid() }
