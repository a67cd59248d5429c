-- Renews the places of a caller's open streams, and takes them again where they were lost: the streams are open all the same.
-- KEYS: the caller's places (lease.lua)
-- ARGV: for how many milliseconds the places are taken, the streams' names
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for number = 2, #ARGV do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[number]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('ZCARD', KEYS[1])
