-- End the copy of a stream whose relay is gone, with an error as its last event. Does nothing where the stream is over.
--
-- KEYS  the Redis stream of the events, and the hash, as in append.lua
-- ARGV  the error's event; how long the events are kept, in ms; how long the hash is kept, in ms
local stream, about = KEYS[1], KEYS[2]
if redis.call('EXISTS', about) == 0 or redis.call('HEXISTS', about, 'over') == 1 then return 0 end
local last = tonumber(redis.call('HGET', about, 'last')) + 1
redis.call('XADD', stream, last .. '-0', 'b', ARGV[1])
redis.call('XADD', stream, (last + 1) .. '-0', 'o', 'broken')
redis.call('HSET', about, 'last', last, 'over', 'broken')
redis.call('PEXPIRE', stream, ARGV[2])
redis.call('PEXPIRE', about, ARGV[3])
return 1
