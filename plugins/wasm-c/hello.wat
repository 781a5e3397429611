(component
  (type $ty-greetd:plugin/types@1.0.0 (;0;)
    (instance
      (type (;0;) (tuple string string))
      (type (;1;) (list 0))
      (type (;2;) (record (field "handler" string) (field "transport" string) (field "local" string) (field "remote" string) (field "connected" bool) (field "options" 1) (field "facts" 1)))
      (export (;3;) "peer" (type (eq 2)))
      (type (;4;) (list u8))
      (type (;5;) (variant (case "reply" 4) (case "silent") (case "close" 4)))
      (export (;6;) "action" (type (eq 5)))
    )
  )
  (import "greetd:plugin/types@1.0.0" (instance $greetd:plugin/types@1.0.0 (;0;) (type $ty-greetd:plugin/types@1.0.0)))
  (core module $main (;0;)
    (type (;0;) (func (param i32) (result i32)))
    (type (;1;) (func (param i32 i32)))
    (type (;2;) (func))
    (type (;3;) (func (param i32 i32 i32 i32) (result i32)))
    (type (;4;) (func (result i32)))
    (type (;5;) (func (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (type (;6;) (func (param i32 i32 i32) (result i32)))
    (type (;7;) (func (param i32)))
    (import "[export]greetd:plugin/handler@1.0.0" "[resource-new]session" (func (;0;) (type 0)))
    (table (;0;) 1 1 funcref)
    (memory (;0;) 2)
    (global (;0;) (mut i32) i32.const 65536)
    (export "memory" (memory 0))
    (export "cabi_realloc" (func 5))
    (export "greetd:plugin/handler@1.0.0#describe" (func 6))
    (export "greetd:plugin/handler@1.0.0#[constructor]session" (func 7))
    (export "greetd:plugin/handler@1.0.0#[method]session.on-open" (func 8))
    (export "greetd:plugin/handler@1.0.0#[method]session.on-message" (func 9))
    (export "greetd:plugin/handler@1.0.0#[method]session.on-close" (func 10))
    (export "greetd:plugin/handler@1.0.0#[dtor]session" (func 11))
    (export "cabi_post_greetd:plugin/handler@1.0.0#[method]session.on-open" (func 12))
    (export "cabi_post_greetd:plugin/handler@1.0.0#[method]session.on-message" (func 13))
    (func (;1;) (type 1) (param i32 i32)
      i32.const 0
      local.get 1
      i32.load8_u offset=32
      local.tee 1
      i32.store8 offset=65648
      block ;; label = @1
        local.get 1
        i32.const 1
        i32.ne
        br_if 0 (;@1;)
        local.get 0
        i32.const 7
        i32.store offset=8
        local.get 0
        i32.const 65597
        i32.store offset=4
        local.get 0
        i32.const 0
        i32.store
        return
      end
      local.get 0
      i64.const 0
      i64.store offset=4 align=4
      local.get 0
      i32.const 1
      i32.store
    )
    (func (;2;) (type 1) (param i32 i32)
      (local i32 i32 i32 i32)
      local.get 1
      i32.load offset=4
      local.set 2
      block ;; label = @1
        block ;; label = @2
          block ;; label = @3
            i32.const 0
            i32.load8_u offset=65648
            br_if 0 (;@3;)
            local.get 1
            i32.load
            local.set 3
            i32.const 65605
            local.set 4
            br 1 (;@2;)
          end
          i32.const 4
          local.set 5
          local.get 1
          i32.load
          local.set 3
          i32.const 65612
          local.set 4
          local.get 2
          i32.const 4
          i32.ne
          br_if 0 (;@2;)
          local.get 3
          i32.load align=1
          i32.const 1953069157
          i32.ne
          br_if 1 (;@1;)
          local.get 0
          i64.const 0
          i64.store offset=4 align=4
          local.get 0
          i32.const 2
          i32.store
          return
        end
        local.get 2
        local.set 5
      end
      local.get 5
      i32.const 6
      i32.add
      local.tee 2
      call 4
      local.tee 1
      i32.const 4
      i32.add
      local.get 4
      i32.const 4
      i32.add
      i32.load16_u align=1
      i32.store16 align=1
      local.get 1
      local.get 4
      i32.load align=1
      i32.store align=1
      local.get 1
      i32.const 6
      i32.add
      local.get 3
      local.get 5
      memory.copy
      local.get 0
      local.get 2
      i32.store offset=8
      local.get 0
      local.get 1
      i32.store offset=4
      local.get 0
      i32.const 0
      i32.store
    )
    (func (;3;) (type 2))
    (func (;4;) (type 0) (param i32) (result i32)
      (local i32 i32)
      block ;; label = @1
        i32.const 0
        i32.load offset=65724
        local.tee 1
        br_if 0 (;@1;)
        i32.const 65744
        local.set 1
        i32.const 0
        i32.const 65744
        i32.store offset=65724
        i32.const 0
        i32.const 65744
        i32.store offset=65728
      end
      block ;; label = @1
        memory.size
        i32.const 16
        i32.shl
        local.get 1
        i32.sub
        local.tee 2
        local.get 0
        i32.ge_u
        br_if 0 (;@1;)
        local.get 0
        local.get 2
        i32.sub
        i32.const 65535
        i32.add
        i32.const 16
        i32.shr_u
        memory.grow
        i32.const -1
        i32.ne
        br_if 0 (;@1;)
        unreachable
      end
      i32.const 0
      local.get 1
      local.get 0
      i32.add
      i32.store offset=65724
      local.get 1
    )
    (func (;5;) (type 3) (param i32 i32 i32 i32) (result i32)
      (local i32)
      block ;; label = @1
        i32.const 0
        i32.load offset=65724
        local.tee 4
        br_if 0 (;@1;)
        i32.const 65744
        local.set 4
        i32.const 0
        i32.const 65744
        i32.store offset=65724
        i32.const 0
        i32.const 65744
        i32.store offset=65728
      end
      block ;; label = @1
        block ;; label = @2
          memory.size
          i32.const 16
          i32.shl
          local.get 2
          local.get 4
          i32.add
          i32.const -1
          i32.add
          i32.const 0
          local.get 2
          i32.sub
          i32.and
          local.tee 2
          i32.sub
          local.tee 4
          local.get 3
          i32.ge_u
          br_if 0 (;@2;)
          local.get 3
          local.get 4
          i32.sub
          i32.const 65535
          i32.add
          i32.const 16
          i32.shr_u
          memory.grow
          i32.const -1
          i32.eq
          br_if 1 (;@1;)
        end
        i32.const 0
        local.get 2
        local.get 3
        i32.add
        i32.store offset=65724
        block ;; label = @2
          local.get 1
          i32.eqz
          br_if 0 (;@2;)
          local.get 2
          local.get 0
          local.get 1
          local.get 3
          local.get 1
          local.get 3
          i32.lt_u
          select
          memory.copy
        end
        local.get 2
        return
      end
      unreachable
    )
    (func (;6;) (type 4) (result i32)
      i32.const 0
      i32.const 0
      i64.load offset=65628 align=4
      i64.store offset=65664
      i32.const 0
      i32.const 0
      i64.load offset=65620 align=4
      i64.store offset=65656
      i32.const 65636
    )
    (func (;7;) (type 5) (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
      i32.const 0
      local.get 12
      i32.store offset=65720
      i32.const 0
      local.get 11
      i32.store offset=65716
      i32.const 0
      local.get 10
      i32.store offset=65712
      i32.const 0
      local.get 9
      i32.store offset=65708
      i32.const 0
      local.get 7
      i32.store offset=65700
      i32.const 0
      local.get 6
      i32.store offset=65696
      i32.const 0
      local.get 5
      i32.store offset=65692
      i32.const 0
      local.get 4
      i32.store offset=65688
      i32.const 0
      local.get 3
      i32.store offset=65684
      i32.const 0
      local.get 2
      i32.store offset=65680
      i32.const 0
      local.get 1
      i32.store offset=65676
      i32.const 0
      local.get 0
      i32.store offset=65672
      i32.const 0
      local.get 8
      i32.const 0
      i32.ne
      i32.store8 offset=65704
      i32.const 0
      i32.const 0
      i32.load offset=65724
      i32.store offset=65728
      i32.const 65672
      call 0
    )
    (func (;8;) (type 0) (param i32) (result i32)
      (local i32)
      global.get 0
      i32.const 16
      i32.sub
      local.tee 1
      global.set 0
      local.get 1
      local.get 0
      call 1
      i32.const 0
      local.get 1
      i32.const 8
      i32.add
      i32.load
      i32.store offset=65740
      i32.const 0
      local.get 1
      i64.load
      i64.store offset=65732 align=4
      local.get 1
      i32.const 16
      i32.add
      global.set 0
      i32.const 65732
    )
    (func (;9;) (type 6) (param i32 i32 i32) (result i32)
      (local i32)
      global.get 0
      i32.const 32
      i32.sub
      local.tee 3
      global.set 0
      local.get 3
      local.get 2
      i32.store offset=12
      local.get 3
      local.get 1
      i32.store offset=8
      local.get 3
      local.get 3
      i64.load offset=8 align=4
      i64.store
      local.get 3
      i32.const 16
      i32.add
      local.get 3
      call 2
      i32.const 0
      local.get 3
      i32.const 24
      i32.add
      i32.load
      i32.store offset=65740
      i32.const 0
      local.get 3
      i64.load offset=16
      i64.store offset=65732 align=4
      local.get 3
      i32.const 32
      i32.add
      global.set 0
      i32.const 65732
    )
    (func (;10;) (type 7) (param i32)
      call 3
    )
    (func (;11;) (type 7) (param i32))
    (func (;12;) (type 7) (param i32)
      i32.const 0
      i32.const 0
      i32.load offset=65728
      i32.store offset=65724
    )
    (func (;13;) (type 7) (param i32)
      i32.const 0
      i32.const 0
      i32.load offset=65728
      i32.store offset=65724
    )
    (data (;0;) (i32.const 65536) "greets: welcome, Hello X for each X, until exit\00wasm-c-hello\00welcome\00Hello,\00Hello \00\000\00\01\00\0c\00\00\00\00\00\01\00/\00\00\00")
    (data (;1;) (i32.const 65636) "x\00\01\00\01\00\00\00\00\00\00\00")
    (@producers
      (processed-by "wit-component" "0.245.1")
    )
  )
  (core module $wit-component-shim-module (;1;)
    (type (;0;) (func (param i32)))
    (table (;0;) 1 1 funcref)
    (export "0" (func 0))
    (export "$imports" (table 0))
    (func (;0;) (type 0) (param i32)
      local.get 0
      i32.const 0
      call_indirect (type 0)
    )
    (@producers
      (processed-by "wit-component" "0.245.1")
    )
  )
  (core module $wit-component-fixup (;2;)
    (type (;0;) (func (param i32)))
    (import "" "0" (func (;0;) (type 0)))
    (import "" "$imports" (table (;0;) 1 1 funcref))
    (elem (;0;) (i32.const 0) func 0)
    (@producers
      (processed-by "wit-component" "0.245.1")
    )
  )
  (core instance $wit-component-shim-instance (;0;) (instantiate $wit-component-shim-module))
  (alias export $greetd:plugin/types@1.0.0 "peer" (type $peer (;1;)))
  (alias export $greetd:plugin/types@1.0.0 "action" (type $action (;2;)))
  (type (;3;) (enum "per-session" "shared"))
  (type (;4;) (record (field "name" string) (field "summary" string)))
  (type (;5;) (list 4))
  (type (;6;) (record (field "handlers" 5) (field "instances" 3)))
  (alias core export $wit-component-shim-instance "0" (core func $dtor-session (;0;)))
  (type $session (;7;) (resource (rep i32) (dtor $dtor-session)))
  (core func $resource.new (;1;) (canon resource.new $session))
  (core instance $"[export]greetd:plugin/handler@1.0.0" (;1;)
    (export "[resource-new]session" (func $resource.new))
  )
  (core instance $main (;2;) (instantiate $main
      (with "[export]greetd:plugin/handler@1.0.0" (instance $"[export]greetd:plugin/handler@1.0.0"))
    )
  )
  (alias core export $main "memory" (core memory $memory (;0;)))
  (alias core export $wit-component-shim-instance "$imports" (core table $"shim table" (;0;)))
  (alias core export $main "greetd:plugin/handler@1.0.0#[dtor]session" (core func $"greetd:plugin/handler@1.0.0#[dtor]session" (;2;)))
  (core instance $fixup-args (;3;)
    (export "$imports" (table $"shim table"))
    (export "0" (func $"greetd:plugin/handler@1.0.0#[dtor]session"))
  )
  (core instance $fixup (;4;) (instantiate $wit-component-fixup
      (with "" (instance $fixup-args))
    )
  )
  (type (;8;) (own $session))
  (type (;9;) (func (param "peer" $peer) (result 8)))
  (alias core export $main "greetd:plugin/handler@1.0.0#[constructor]session" (core func $"greetd:plugin/handler@1.0.0#[constructor]session" (;3;)))
  (alias core export $main "cabi_realloc" (core func $cabi_realloc (;4;)))
  (func $"[constructor]session" (;0;) (type 9) (canon lift (core func $"greetd:plugin/handler@1.0.0#[constructor]session") (memory $memory) (realloc $cabi_realloc) string-encoding=utf8))
  (type (;10;) (borrow $session))
  (type (;11;) (func (param "self" 10) (result $action)))
  (alias core export $main "greetd:plugin/handler@1.0.0#[method]session.on-open" (core func $"greetd:plugin/handler@1.0.0#[method]session.on-open" (;5;)))
  (alias core export $main "cabi_post_greetd:plugin/handler@1.0.0#[method]session.on-open" (core func $"cabi_post_greetd:plugin/handler@1.0.0#[method]session.on-open" (;6;)))
  (func $"[method]session.on-open" (;1;) (type 11) (canon lift (core func $"greetd:plugin/handler@1.0.0#[method]session.on-open") (memory $memory) (post-return $"cabi_post_greetd:plugin/handler@1.0.0#[method]session.on-open")))
  (type (;12;) (list u8))
  (type (;13;) (func (param "self" 10) (param "message" 12) (result $action)))
  (alias core export $main "greetd:plugin/handler@1.0.0#[method]session.on-message" (core func $"greetd:plugin/handler@1.0.0#[method]session.on-message" (;7;)))
  (alias core export $main "cabi_post_greetd:plugin/handler@1.0.0#[method]session.on-message" (core func $"cabi_post_greetd:plugin/handler@1.0.0#[method]session.on-message" (;8;)))
  (func $"[method]session.on-message" (;2;) (type 13) (canon lift (core func $"greetd:plugin/handler@1.0.0#[method]session.on-message") (memory $memory) (realloc $cabi_realloc) (post-return $"cabi_post_greetd:plugin/handler@1.0.0#[method]session.on-message")))
  (type (;14;) (func (param "self" 10)))
  (alias core export $main "greetd:plugin/handler@1.0.0#[method]session.on-close" (core func $"greetd:plugin/handler@1.0.0#[method]session.on-close" (;9;)))
  (func $"[method]session.on-close" (;3;) (type 14) (canon lift (core func $"greetd:plugin/handler@1.0.0#[method]session.on-close")))
  (type (;15;) (func (result 6)))
  (alias core export $main "greetd:plugin/handler@1.0.0#describe" (core func $greetd:plugin/handler@1.0.0#describe (;10;)))
  (func $describe (;4;) (type 15) (canon lift (core func $greetd:plugin/handler@1.0.0#describe) (memory $memory) string-encoding=utf8))
  (alias export $greetd:plugin/types@1.0.0 "peer" (type $"#type16 peer" (@name "peer") (;16;)))
  (alias export $greetd:plugin/types@1.0.0 "action" (type $"#type17 action" (@name "action") (;17;)))
  (component $greetd:plugin/handler@1.0.0-shim-component (;0;)
    (type (;0;) (tuple string string))
    (type (;1;) (list 0))
    (type (;2;) (record (field "handler" string) (field "transport" string) (field "local" string) (field "remote" string) (field "connected" bool) (field "options" 1) (field "facts" 1)))
    (import "import-type-peer" (type (;3;) (eq 2)))
    (type (;4;) (list u8))
    (type (;5;) (variant (case "reply" 4) (case "silent") (case "close" 4)))
    (import "import-type-action" (type (;6;) (eq 5)))
    (import "import-type-session" (type (;7;) (sub resource)))
    (import "import-type-peer0" (type (;8;) (eq 3)))
    (type (;9;) (own 7))
    (type (;10;) (func (param "peer" 8) (result 9)))
    (import "import-constructor-session" (func (;0;) (type 10)))
    (type (;11;) (borrow 7))
    (import "import-type-action0" (type (;12;) (eq 6)))
    (type (;13;) (func (param "self" 11) (result 12)))
    (import "import-method-session-on-open" (func (;1;) (type 13)))
    (type (;14;) (func (param "self" 11) (param "message" 4) (result 12)))
    (import "import-method-session-on-message" (func (;2;) (type 14)))
    (type (;15;) (func (param "self" 11)))
    (import "import-method-session-on-close" (func (;3;) (type 15)))
    (type (;16;) (record (field "name" string) (field "summary" string)))
    (import "import-type-about" (type (;17;) (eq 16)))
    (type (;18;) (list 17))
    (type (;19;) (enum "per-session" "shared"))
    (import "import-type-instances" (type (;20;) (eq 19)))
    (type (;21;) (record (field "handlers" 18) (field "instances" 20)))
    (import "import-type-description" (type (;22;) (eq 21)))
    (type (;23;) (func (result 22)))
    (import "import-func-describe" (func (;4;) (type 23)))
    (export (;24;) "peer" (type 3))
    (export (;25;) "action" (type 6))
    (type (;26;) (enum "per-session" "shared"))
    (export (;27;) "instances" (type 26))
    (type (;28;) (record (field "name" string) (field "summary" string)))
    (export (;29;) "about" (type 28))
    (type (;30;) (list 29))
    (type (;31;) (record (field "handlers" 30) (field "instances" 27)))
    (export (;32;) "description" (type 31))
    (export (;33;) "session" (type 7))
    (type (;34;) (own 33))
    (type (;35;) (func (param "peer" 24) (result 34)))
    (export (;5;) "[constructor]session" (func 0) (func (type 35)))
    (type (;36;) (borrow 33))
    (type (;37;) (func (param "self" 36) (result 25)))
    (export (;6;) "[method]session.on-open" (func 1) (func (type 37)))
    (type (;38;) (func (param "self" 36) (param "message" 4) (result 25)))
    (export (;7;) "[method]session.on-message" (func 2) (func (type 38)))
    (type (;39;) (func (param "self" 36)))
    (export (;8;) "[method]session.on-close" (func 3) (func (type 39)))
    (type (;40;) (func (result 32)))
    (export (;9;) "describe" (func 4) (func (type 40)))
  )
  (instance $greetd:plugin/handler@1.0.0-shim-instance (;1;) (instantiate $greetd:plugin/handler@1.0.0-shim-component
      (with "import-constructor-session" (func $"[constructor]session"))
      (with "import-method-session-on-open" (func $"[method]session.on-open"))
      (with "import-method-session-on-message" (func $"[method]session.on-message"))
      (with "import-method-session-on-close" (func $"[method]session.on-close"))
      (with "import-func-describe" (func $describe))
      (with "import-type-peer" (type $"#type16 peer"))
      (with "import-type-action" (type $"#type17 action"))
      (with "import-type-session" (type $session))
      (with "import-type-peer0" (type $peer))
      (with "import-type-action0" (type $action))
      (with "import-type-about" (type 4))
      (with "import-type-instances" (type 3))
      (with "import-type-description" (type 6))
    )
  )
  (export $greetd:plugin/handler@1.0.0 (;2;) "greetd:plugin/handler@1.0.0" (instance $greetd:plugin/handler@1.0.0-shim-instance))
  (@producers
    (processed-by "wit-component" "0.245.1")
  )
)
